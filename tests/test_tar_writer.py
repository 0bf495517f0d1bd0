"""Headers made by hand are those of the standard library."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.tar_writer import TarBuilder, _header, pack


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=110),
    num_bytes=st.integers(0, 8**12) | st.sampled_from([0, 8**11 - 1, 8**11]),
)
def test_a_header_is_that_of_the_standard_library(name: str, num_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = num_bytes, 0o644
    assert _header(name, num_bytes) == info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 300])
def test_names_of_any_length_are_read_back(length: int) -> None:
    builder = TarBuilder()
    builder.add(pack("k" * length, {"txt": b"hello", "a": b""}))
    tar, index = builder.finish()
    assert (index.tar_bytes, index.stops.tolist()) == (len(tar), [len(tar) - 1024])
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        assert [(member.name, member.size, member.mode) for member in found] == [
            (f"{'k' * length}.a", 0, 0o644),
            (f"{'k' * length}.txt", 5, 0o644),
        ]
