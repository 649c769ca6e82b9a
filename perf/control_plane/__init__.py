"""What a busy control plane takes from rounds: `python -m partywire.perf.control_plane`."""
