"""Numbers as a person writes them, the same in tables, pictures and warnings."""

from __future__ import annotations

UNITS = {"steps": "step", "epochs": "epoch", "samples": "sample"}


def readable_rate(rate: float) -> str:
    """Return a learning rate with as few signs as it needs.

    >>> readable_rate(1e-05), readable_rate(0.00025), readable_rate(0.1), readable_rate(0)
    ('1e-5', '2.5e-4', '0.1', '0')
    """
    plain = f"{rate:.4g}"
    if 0 < abs(rate) < 1e-3 and "e" not in plain:
        digits, _, power = f"{rate:.3e}".partition("e")
        plain = f"{digits.rstrip('0').rstrip('.')}e{power}"
    digits, _, power = plain.partition("e")
    return f"{digits}e{int(power)}" if power else plain


def readable_time(time: float) -> str:
    """Return a time or length, in whichever unit.

    >>> readable_time(40000), readable_time(2.5)
    ('40,000', '2.5')
    """
    return f"{time:,.0f}" if time == int(time) else f"{time:,.10g}"


def readable_share(share: float) -> str:
    """Return a share in percent, with a digit after the point where it is needed; what is not none is not 0%.

    >>> [readable_share(share) for share in (0.25, 1 / 3, 0.00004, 0)]
    ['25%', '33.3%', '<0.1%', '0%']
    """
    percent = 100 * share
    if 0 < percent < 0.05:
        return "<0.1%"
    return f"{percent:.1f}".removesuffix(".0") + "%"
