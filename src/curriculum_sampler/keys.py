"""Keys: bits derived from the one seed and a path of names, never by adding to the seed.

Sums collide (seed 5 with pass 1 would equal seed 6 with pass 0) and tie unrelated streams together;
a hash of the whole path does neither, so a new bucket leaves the order of the others untouched.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def derive(seed: int, *path: str | int) -> int:
    """Return a 64-bit key for ``path`` under ``seed``: BLAKE2b of their JSON text.

    >>> derive(17, "bucket", "easy", "pass", 0) == derive(17, "bucket", "easy", "pass", 0)
    True
    >>> derive(5, "pass", 1) == derive(6, "pass", 0)
    False
    """
    text = json.dumps([seed, *path], separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def sample_rng(seed: int, bucket: str, bucket_pass: int, index: int) -> np.random.Generator:
    """Return the generator for the randomness of one sample in one pass.

    It depends on nothing else, so an augmentation is the same whichever worker or rank does it, and
    after any resume. Philox is counter-based: making one is cheap and touches no global state.

    >>> bool(sample_rng(17, "easy", 0, 3).random() == sample_rng(17, "easy", 0, 3).random())
    True
    """
    return np.random.Generator(np.random.Philox(key=derive(seed, "sample", bucket, bucket_pass, index)))


def digest(told: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
