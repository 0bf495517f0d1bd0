"""Is this argument a number of the kind that is wanted? NumPy's numbers count, booleans and text do not."""

from __future__ import annotations

import math
import numbers
from fractions import Fraction
from typing import Any

from .errors import ArgumentError


def whole(what: str, value: Any, *, least: int | None = None, largest: int | None = None) -> int:
    """Return ``value`` as an ``int``.

    Raises:
        ArgumentError: It is no whole number, or outside the limits; the message begins with ``what``.

    >>> whole("batch_size", 64, least=1)
    64
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        found = int(value)
        if (least is None or found >= least) and (largest is None or found <= largest):
            return found
    if least is None:
        rule = "a whole number"
    elif largest is None:
        rule = f"a whole number, {least} or more"
    else:
        rule = f"a whole number from {least} to {largest:,}"
    raise ArgumentError(f"{what}: got {value!r}, but it is {rule}. Correct it.")


def finite(value: Any) -> int | float | None:
    """Return a finite ``int`` or ``float`` equal to ``value``, or None where there is none.

    >>> finite(3), finite(0.25), finite(float("nan")), finite("3"), finite(True)
    (3, 0.25, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        # By way of the text: a float32's 0.3 means 0.3, not the nearest float64 to it.
        found = float(value) if isinstance(value, Fraction) else float(str(value))
    except (OverflowError, ValueError):
        return None
    return found if math.isfinite(found) else None
