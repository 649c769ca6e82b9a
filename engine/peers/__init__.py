"""Peers and the connections to them: who is who, how a connection is made, and which stands.

A party of secure computation imports none of it. Start reading in `contract.py`, then `connections.py`.
"""
