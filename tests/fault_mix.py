"""A mix of faults that pass, named by a seed: what each request meets, whatever the timing of threads.

What a request meets depends on the seed, on what is asked for and on how often it was asked before, not on its number
among all requests, which no two runs of several threads agree about. So a seed that found something finds it again. (Of flips near one another the first asked for happens.)
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import MappingProxyType

from .s3_server import Fault

# Share of the requests that meet each kind of fault. Silence and stalls cost their reader a timeout each.
EVERY_KIND: Mapping[str, float] = MappingProxyType(
    {
        "status": 0.08,
        "hangup": 0.04,
        "reset": 0.05,
        "cut": 0.05,
        "drip": 0.03,
        "flip": 0.04,
        "silent": 0.002,
        "stall": 0.002,
    }
)
# What can happen to an answer without a body, and to any object.
_WITHOUT_BODY = ("status", "hangup", "silent")
_STATUSES = ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (503, "ServiceUnavailable"))
_MOST_IN_A_ROW = 3
# No sample is longer.
_SAMPLE_BYTES = 8 << 10


class FaultMix:
    """Decides for a ``FaultProxy`` (as its ``decide``) what each request meets; every fault can be survived.

    The same request meets at most three faults in a row, and nothing is flipped near a byte that was flipped before:
    the second reading of a sample is whole, also where it breaks and goes on from its middle. Indexes and manifests, which are not read twice, are
    not flipped.

    >>> mix = FaultMix(3, {"cut": 0.5})
    >>> [mix(number, "GET", "a.tar", f"bytes={number}00-999").kind for number in (1, 3)]
    ['cut', 'cut']
    >>> mix(2, "GET", "a.tar", "bytes=200-999") is None
    True
    """

    def __init__(self, seed: int, shares: Mapping[str, float] = EVERY_KIND) -> None:
        if sum(shares.values()) > 1:
            raise ValueError(f"shares={dict(shares)} add up to more than 1.")
        self.seed = seed
        self.shares = shares
        self._asked: Counter[tuple[str, str, str]] = Counter()
        self._flipped: defaultdict[str, list[int]] = defaultdict(list)

    def __call__(self, number: int, method: str, key: str, wanted: str) -> Fault | None:
        """Say what a request meets, and remember that it was made."""
        turn = self._asked[method, key, wanted]
        self._asked[method, key, wanted] += 1
        if turn % (_MOST_IN_A_ROW + 1) == _MOST_IN_A_ROW:
            return None
        chance, place = self._random(method, key, wanted, turn)
        for kind, share in self.shares.items():
            if chance < share:
                return self._fault(kind, method, key, wanted, place)
            chance -= share
        return None

    def _fault(self, kind: str, method: str, key: str, wanted: str, place: int) -> Fault | None:
        if method != "GET" and kind not in _WITHOUT_BODY:
            return None
        if kind == "status":
            status, code = _STATUSES[place % len(_STATUSES)]
            return Fault("status", status=status, code=code)
        if kind == "drip":
            return Fault("drip", after=-1 - place % 8)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if not last:
            return Fault(kind)
        length = int(last) - int(first) + 1
        if kind != "flip":
            return Fault(kind, after=place % length)
        if not key.endswith(".tar") or any(
            int(first) - _SAMPLE_BYTES < at < int(last) + _SAMPLE_BYTES for at in self._flipped[key]
        ):
            return None
        self._flipped[key].append(int(first) + place % length)
        return Fault("flip", after=place % length)

    def _random(self, *told: object) -> tuple[float, int]:
        """Return a number in [0, 1) and a large one, from the seed and what is told."""
        digest = hashlib.blake2b(repr((self.seed, *told)).encode(), digest_size=16).digest()
        chance, place = struct.unpack("<QQ", digest)
        return chance / 2**64, place
