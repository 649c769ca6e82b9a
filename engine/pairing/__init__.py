"""Links of pools: two by two, without a party set and without names that both ends know.

A pool's one child process (`process`) is gateway and I/O process of all its links. Two pools that were given each
other's address, or certificate, introduce themselves (`meeting`), which gives each a name for the other; from there on
a link is made and kept as any other (`pair_keeper`).
"""
