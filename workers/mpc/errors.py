"""Misuse of the MPC layer, as types with fields; `__str__` makes the sentence.

    PartyWireError
    └── MpcError
        ├── NotInRing       a plaintext or dtype that is no element of Z_2^16, Z_2^32, Z_2^64 or a bit
        ├── ShareMismatch   operands whose shapes or rings do not fit together
        └── NotThreeParties the session does not join exactly three parties

All of them are bugs of the calling protocol and are raised before anything is sent, at every party that makes the same
call; what an owner alone has, such as the values of an input, is refused there alone. Fields are texts about shapes and
types, never a share, a plaintext or a seed: the sentence of an error is told to the other parties, and an operand that
is refused may be a plaintext, so `described` makes its text. What a peer sends in a wrong shape is refused by the
session's `recv(out=...)` with its own error.
"""

from __future__ import annotations

from partywire.engine.errors import PartyWireError

__all__ = ["MpcError", "NotInRing", "NotThreeParties", "ShareMismatch", "described"]


def described(operand: object) -> str:
    """Type, shape and dtype of anything at all, without a word of its content."""
    shape, dtype = getattr(operand, "shape", None), getattr(operand, "dtype", None)
    parts = [type(operand).__name__]
    parts += [f"of shape {shape}"] if isinstance(shape, tuple) else []
    parts += [f"of {dtype}"] if dtype is not None else []
    return " ".join(parts)


class MpcError(PartyWireError):
    """Root of what the MPC layer refuses."""


class NotInRing(MpcError):
    """Raised when a value or a dtype does not belong to the rings that are implemented."""

    def __init__(self, operation: str, seen: str, allowed: str) -> None:
        super().__init__(operation, seen, allowed)
        self.operation = operation
        self.seen = seen
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.operation} takes {self.allowed}, not {self.seen}"


class ShareMismatch(MpcError):
    """Raised when two operands, or a share and what the call expects, do not fit."""

    def __init__(self, operation: str, left: str, right: str) -> None:
        super().__init__(operation, left, right)
        self.operation = operation
        self.left = left
        self.right = right

    def __str__(self) -> str:
        return f"{self.operation} cannot join {self.left} and {self.right}"


class NotThreeParties(MpcError):
    """Raised when a session with another number of parties, or a party index beyond 2, is used."""

    def __init__(self, seen: str) -> None:
        super().__init__(seen)
        self.seen = seen

    def __str__(self) -> str:
        return f"replicated secret sharing needs the parties 0, 1 and 2, not {self.seen}"
