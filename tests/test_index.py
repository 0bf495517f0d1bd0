"""An index is what was written, or an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import ShardError
from curriculum_sampler.index import MOST_SAMPLE_BYTES, ShardIndex

lengths = st.lists(st.integers(1, MOST_SAMPLE_BYTES // 512), max_size=20)


def index_of(blocks: list[int]) -> ShardIndex:
    starts = np.concatenate([[0], np.cumsum(blocks, dtype=np.int64)]) * 512
    samples = [(int(start), count * 512, count % 97) for start, count in zip(starts, blocks, strict=False)]
    return ShardIndex.of(int(starts[-1]) + 1024, samples)


@given(lengths)
def test_an_index_survives_the_way_through_its_file(blocks: list[int]) -> None:
    index = index_of(blocks)
    again = ShardIndex.from_bytes(index.to_bytes())
    assert len(again) == len(blocks)
    assert again.tar_bytes == index.tar_bytes
    for column in ("starts", "lengths", "checksums", "stops"):
        assert np.array_equal(getattr(again, column), getattr(index, column))
        assert not again.starts.flags.writeable
    assert again.to_bytes() == index.to_bytes()


def test_a_sample_that_claims_more_than_is_held_in_memory_is_refused() -> None:
    claimed = index_of([1, MOST_SAMPLE_BYTES // 512 + 1])
    with pytest.raises(ShardError, match=f"more than the {MOST_SAMPLE_BYTES}"):
        ShardIndex.from_bytes(claimed.to_bytes())


@given(st.data())
def test_any_wrong_byte_or_length_is_an_error(data: st.DataObject) -> None:
    whole = index_of([3, 1, 4]).to_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    if not 24 <= position < 32:  # the tar's length, which the manifest's digest covers
        with pytest.raises(ShardError):
            ShardIndex.from_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
    with pytest.raises(ShardError):
        ShardIndex.from_bytes(whole[:position])
    with pytest.raises(ShardError):
        ShardIndex.from_bytes(whole + b"\0" * 24)


@pytest.mark.parametrize(
    "samples",
    [
        [(0, 1024, 1), (512, 1024, 2)],
        [(1024, 512, 1), (0, 512, 2)],
        [(0, 0, 1)],
        [(100, 512, 1)],
        [(0, 100, 1)],
        [(4096, 1024, 1)],
    ],
    ids=["overlapping", "backwards", "empty", "offset unaligned", "length unaligned", "beyond the end"],
)
def test_places_that_no_tar_has_are_an_error(samples: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ShardError, match="names places outside its tar of 4096 bytes"):
        ShardIndex.from_bytes(ShardIndex.of(4096, samples).to_bytes())


def test_a_newer_format_and_a_foreign_file_are_told_apart() -> None:
    newer = bytearray(index_of([1]).to_bytes())
    newer[8] = 2
    with pytest.raises(ShardError, match="format version 2, this library reads 1"):
        ShardIndex.from_bytes(bytes(newer))
    with pytest.raises(ShardError, match="not a shard index"):
        ShardIndex.from_bytes(b"v1.2 4\npng 512 100 a.png\n" * 4)
