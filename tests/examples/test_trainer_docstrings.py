"""The examples in the docstrings of the trainers' shared parts are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["arguments", "checkpoint", "interrupts", "randomness", "rates", "stages", "wandb_runs"]
)
def test_docstrings_tell_the_truth(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"common.{name}"))
    assert failed == 0
    assert tried > 0
