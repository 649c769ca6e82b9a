"""Numbers as people read them: three significant digits, never an exponent, the unit that keeps them short."""

from __future__ import annotations

from typing import Final

NO_FIGURE: Final = "\N{EN DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"


def digits(value: float, *, trim: bool = False) -> str:
    """Three significant digits with thousands separators: 0.0123, 1.23, 12.3, 123, 12,300. `trim` drops final zeros."""
    rounded = float(f"{value:.3g}")
    size = abs(rounded)
    if size >= 100 or size == 0:
        return f"{rounded:,.0f}"
    decimals = 1 if size >= 10 else 2
    bound = 1.0
    while size < bound and decimals < 9:
        bound /= 10
        decimals += 1
    written = f"{rounded:.{decimals}f}"
    return written.rstrip("0").rstrip(".") if trim else written


def count(value: float, *, trim: bool = False) -> str:
    """A count or a rate: 493 k, 2.70 M."""
    rounded = float(f"{value:.3g}")
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(rounded) >= limit:
            return f"{digits(rounded / limit, trim=trim)}{SPACE}{unit}"
    return digits(rounded, trim=trim)


def bytes_size(value: float) -> str:
    """A size of a message: 64 B, 4 KiB, 1 MiB."""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= limit:
            return f"{digits(value / limit, trim=True)}{SPACE}{unit}"
    return f"{digits(value, trim=True)}{SPACE}B"


def duration(microseconds: float) -> str:
    """A time on an axis: 10 µs, 1 ms, 2 s."""
    for limit, unit in ((1e6, "s"), (1e3, "ms"), (1.0, "µs")):
        if microseconds >= limit:
            return f"{digits(microseconds / limit, trim=True)}{SPACE}{unit}"
    return f"{digits(microseconds * 1000, trim=True)}{SPACE}ns"


def ratio(value: float) -> str:
    """How many times as good, with two decimals or three digits: the runs behind it scatter."""
    written = (
        digits(value)
        if value >= 9.995
        else f"{value:.2f}"
        if value >= 0.01
        else digits(float(f"{value:.1g}"), trim=True)
    )
    return f"{written}\N{MULTIPLICATION SIGN}"


def plural(amount: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
