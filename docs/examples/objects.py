"""Two parties send each other Python objects. Each runs: python objects.py CONFIG"""

import dataclasses
import enum
import sys

import numpy as np

from partywire import BlockingParty, Serialization


class Kind(enum.Enum):
    SHARE = 1


@dataclasses.dataclass
class Batch:
    kind: Kind
    rows: np.ndarray


class Ciphertext:
    def __init__(self, value: int) -> None:
        self.value = value

    def serialize(self, **_kwargs: object) -> dict[str, int]:
        return {"value": self.value}

    @staticmethod
    def deserialize(obj: dict[str, int], **_kwargs: object) -> "Ciphertext":
        return Ciphertext(obj["value"])


for cls in (Kind, Batch, Ciphertext):
    Serialization.register_class(cls)  # at both ends

with BlockingParty(sys.argv[1]) as party:
    (session,) = party.make_sessions(1)
    peer = 1 - session.party_index
    session.send_object(peer, {"key": 2**2048 + 1, (1, "a"): {2.5, None}, "batch": Batch(Kind.SHARE, np.ones((2, 3)))})
    received = session.recv_object(peer)
    batch, mixed = received["batch"], received[1, "a"]
    print(f"{party.name}: {batch.kind}, {batch.rows.shape}, {sorted(mixed, key=str)}")

    session.send_object(peer, [Ciphertext(n) for n in range(3)])
    print(f"{party.name}: {[ciphertext.value for ciphertext in session.recv_object(peer)]}")
