"""Secure channels: what stands between a connection's preamble and its HELLO, and seals every byte behind that.

`channel` is the contract, `tls` and `noise` keep it without I/O, `link_security` says which of them a link uses, and
`credentials` reads the files of keys and certificates. `secure_stream` and `guard`, one folder up, put a channel
between a socket and what is above it. A link without security has no channel, and none of this is in its way.
"""
