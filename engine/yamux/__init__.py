"""yamux: many byte streams over one connection, without I/O (https://github.com/hashicorp/yamux/blob/master/spec.md)."""
