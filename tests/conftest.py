"""Hypothesis profiles: ``ci`` is deterministic, ``dev`` looks further, ``nightly`` much further. And what any test may ask for."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "ci", max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=_SLOW
)
settings.register_profile("dev", max_examples=150, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A job that a script's shell puts into the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def collected_here() -> Iterator[None]:
    """The garbage of a test is collected by this thread, when it is over.

    torchdata's readers ahead join their own thread as they are collected, which must not be the one that collects; what
    is left to chance fails whichever test runs then.
    """
    gc.disable()
    yield
    gc.enable()
    gc.collect()
