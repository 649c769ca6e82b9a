"""The user's door: configuration, parties, sessions, values, the batch runner, MPC protocols and the command.

Reading order: session.py (what a user calls), waiting.py (the one way to wait), worker.py (what drives it), party.py.
The names meant for users are those of the package `partywire` itself.
"""
