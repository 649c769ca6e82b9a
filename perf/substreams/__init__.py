"""Substreams beside other implementations of yamux: see `__main__`, which says what is measured."""
