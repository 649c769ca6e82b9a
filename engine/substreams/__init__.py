"""Substreams for asyncio: readers and writers over one connection that a yamux session divides."""
