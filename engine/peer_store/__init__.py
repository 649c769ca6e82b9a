"""Which peers are known, where they can be reached, how well that went, and who is banned; kept in a folder on disk.

A party of secure computation imports none of it. Start reading in `record.py`, then `store.py`; docs/peer-store.md.
"""
