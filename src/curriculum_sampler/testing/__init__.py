"""For tests of your own: storage in memory, a small data set, and checks that hold a thing to our promises.

A check returns None or raises ``AssertionError``, which names the first place that differs, what was expected there and
what came. Nothing here needs pytest. The checks load numpy and the standard library only; ``synthetic_manifest`` writes
shards, for which the extra ``data`` is needed.
"""

from ..memory_storage import MemoryStorage
from .exact import check_exact
from .ranks import check_rank_free
from .resume import check_resume
from .storages import check_storage
from .synthetic import synthetic_manifest, synthetic_sample

__all__ = [
    "MemoryStorage",
    "check_exact",
    "check_rank_free",
    "check_resume",
    "check_storage",
    "synthetic_manifest",
    "synthetic_sample",
]
