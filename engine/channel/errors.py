"""What is wrong with the files of keys and certificates, as a type; needs none of what reads them."""

from __future__ import annotations

from ..errors import PartyWireError


class CredentialError(PartyWireError):
    """Raised when a file that a secure link needs cannot be used. `what` says why and what to do."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.path} {self.what}"
