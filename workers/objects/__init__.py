"""Python objects as bytes and back, without pickle: what `Session.send_object` and `Pool` send (docs/objects.md)."""
