"""One module for each contender, all with the same face: `open_party` (see contender.py)."""
