"""Three-party computation on replicated shares: a library to write jobs with. docs/protocols.md has all its costs."""

from .compare import equal, is_zero, less_than, most_significant_bit
from .convert import to_arithmetic, to_binary
from .errors import MpcError, NotInRing, NotThreeParties, ShareMismatch
from .least import argmin, least, minimum
from .lift import lift, lift_small
from .protocol import Replicated3, RingSession
from .select import inject, multiply_by_bit, select
from .shares import ArithmeticShare, BinaryShare
from .shuffle import shuffle
from .truncate import truncate, truncate_stochastic

__all__ = [
    "Replicated3",
    "RingSession",
    "ArithmeticShare",
    "BinaryShare",
    "less_than",
    "most_significant_bit",
    "equal",
    "is_zero",
    "select",
    "multiply_by_bit",
    "inject",
    "to_binary",
    "to_arithmetic",
    "truncate",
    "truncate_stochastic",
    "lift",
    "lift_small",
    "minimum",
    "argmin",
    "least",
    "shuffle",
    "MpcError",
    "NotInRing",
    "NotThreeParties",
    "ShareMismatch",
]
