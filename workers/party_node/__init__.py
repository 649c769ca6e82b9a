"""What a user of a party sees of its control plane: substreams, messages and calls of peers, in the opener.

Imported only by a party whose configuration has a table [node].
"""
