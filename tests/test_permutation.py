"""A permutation is a bijection at any size, the same however it is asked, and looks random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.keys import derive
from curriculum_sampler.permutation import LARGEST_SORTED, Permutation, shuffled_rows

keys = st.integers(0, 2**64 - 1)
AWKWARD = sorted({1, 2, 3, *(2**k + d for k in range(2, 19) for d in (-1, 0, 1)), 65_537, 262_145, 1_048_577})


@pytest.mark.parametrize("size", AWKWARD)
def test_it_is_a_bijection_at_awkward_sizes(size):
    assert np.array_equal(np.sort(Permutation(size, size)(0, size)), np.arange(size))


@given(keys, st.integers(1, 3 * LARGEST_SORTED))
def test_it_is_a_bijection_at_any_size(key, size):
    assert np.array_equal(np.sort(Permutation(key, size)(0, size)), np.arange(size))


@given(keys, st.integers(1, 2**60), st.data())
def test_parts_agree_with_the_whole_and_stay_inside(key, size, data):
    start = data.draw(st.integers(0, size - 1))
    stop = min(size, start + 50)
    images = Permutation(key, size)(start, stop)
    assert ((images >= 0) & (images < size)).all()
    assert len(set(images.tolist())) == stop - start
    one_by_one = [int(Permutation(key, size)(i, i + 1)[0]) for i in range(start, min(stop, start + 5))]
    assert one_by_one == images[:5].tolist()


@given(keys, st.integers(0, 10**12), st.integers(1, 20), st.integers(1, 300))
def test_every_row_is_a_permutation_and_depends_on_its_number_alone(key, first, num_rows, width):
    rows = shuffled_rows(key, first, num_rows, width)
    assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(width), (num_rows, 1)))
    last = num_rows - 1
    assert np.array_equal(shuffled_rows(key, first + last, 1, width)[0], rows[last])


def deviation(observed: np.ndarray) -> float:
    """Chi-square against the uniform, in standard deviations from its mean."""
    expected = observed.sum() / observed.size
    freedom = observed.size - 1
    return float(((observed - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("size", [3, 5, 40])
def test_small_permutations_put_every_sample_at_every_place_equally_often(size):
    places = np.zeros((size, size))
    for key in range(4000):
        places[np.arange(size), Permutation(derive(key, "test"), size)(0, size)] += 1
    # The rows are not independent, but a bias of any use would be hundreds of deviations.
    assert abs(deviation(places)) < 5


@pytest.mark.parametrize("size", [3, 5, 40])
def test_the_rows_of_one_table_do_so_too(size):
    rows = shuffled_rows(derive(17, "test"), 0, 4000, size)
    places = np.stack([np.bincount(rows[:, place], minlength=size) for place in range(size)])
    assert abs(deviation(places)) < 5
    following = np.bincount(rows[:-1, 0] * size + rows[1:, 0], minlength=size * size)
    assert abs(deviation(following)) < 5, "a row tells about the next"


@pytest.mark.parametrize("size", [LARGEST_SORTED + 1, 100_003, 10**7 + 19, 10**12, 2**59 + 1])
def test_large_permutations_look_uniform_over_keys(size):
    points = [0, 1, size // 2, size - 1]
    images = np.array(
        [[int(p(i, i + 1)[0]) for i in points] for p in (Permutation(key, size) for key in range(3000))],
        dtype=np.float64,
    )
    images /= size
    for column in range(len(points)):
        assert abs(deviation(np.histogram(images[:, column], 32, (0, 1))[0])) < 5
        for other in range(column):
            gaps = (images[:, column] - images[:, other]) % 1
            assert abs(deviation(np.histogram(gaps, 32, (0, 1))[0])) < 5, "places are tied to each other"


@pytest.mark.parametrize("size", [LARGEST_SORTED + 1, 65_537, 10**6, 10**12, 2**59 + 1])
def test_neighbours_and_passes_are_unrelated(size):
    num = min(size, 50_000)
    one, other = (Permutation(derive(17, "pass", e), size)(0, num) / size for e in (0, 1))
    for gaps in (np.diff(one) % 1, (one[2:] - one[:-2]) % 1, (one - other) % 1):
        assert abs(deviation(np.histogram(gaps, 64, (0, 1))[0])) < 6
    places = np.histogram2d(np.arange(num) / num, one, 16, ((0, 1), (0, 1)))[0]
    assert abs(deviation(places)) < 6, "position tells about the sample"
