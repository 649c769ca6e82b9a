"""Three-party computation on replicated shares: the protocols that the shipped jobs are made of."""

from .bits import carry_out, less_than, most_significant_bit
from .errors import MpcError, NotInRing, NotThreeParties, ShareMismatch
from .protocol import Replicated3, RingSession
from .select import inject, multiply_by_bit, select
from .shares import ArithmeticShare, BinaryShare

__all__ = [
    "Replicated3",
    "RingSession",
    "ArithmeticShare",
    "BinaryShare",
    "less_than",
    "most_significant_bit",
    "carry_out",
    "select",
    "multiply_by_bit",
    "inject",
    "MpcError",
    "NotInRing",
    "NotThreeParties",
    "ShareMismatch",
]
