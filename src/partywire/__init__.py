"""PartyWire: a networking engine for secure multi-party computation."""
