"""How often something may be done that costs time and that strangers can ask for.

Between who is asked and a clock. The one invariant: within any span of `n` seconds it is done at most `(n + 1) * per_s`
times. What was not used in the last second is lost. No I/O; time comes from the caller.
"""

from __future__ import annotations


class Allowance:
    """`per_s` times a second, all of a second's at once if need be. Driven by its owner; `now` never goes back."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at: float | None = None  # when `_left` was so much; set by the first call

    def take(self, now: float) -> bool:
        """Whether it may be done once more, now; then it counts."""
        if self._at is not None:
            self._left = min(float(self._per_s), self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
