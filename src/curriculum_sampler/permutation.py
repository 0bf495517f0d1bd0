"""Permutations of ``range(size)`` that are functions, not lists: any part, any time, any size.

Small domains are sorted: every number gets 64 keyed random bits and the numbers are read in the order
of those bits, a uniform random permutation. Large domains are enciphered: a Feistel network of alternating
halves is a bijection whatever its round function is, so the k-th element costs a few arithmetic
operations and no memory. Both are pinned by golden files.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .keys import derive

Int64s: TypeAlias = NDArray[np.int64]
UInt64s: TypeAlias = NDArray[np.uint64]
UInt32s: TypeAlias = NDArray[np.uint32]

# Up to here sorting is cheap (tens of microseconds) and a cipher would be weakest; beyond it a
# cipher has enough state in either half.
LARGEST_SORTED = 1 << 12
LARGEST_SIZE = 1 << 60

_ROUND_PAIRS = 3
# Odd multipliers with good avalanche in 32 bits (the "lowbias32" pair found by search, C. Wellons 2018)
# and the SplitMix64 finaliser's (G. Steele et al. 2014).
_MULTIPLY_32 = (np.uint32(0x7FEB352D), np.uint32(0x846CA68B))
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_64 = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def shuffled_rows(key: int, first_row: int, num_rows: int, width: int) -> Int64s:
    """Return rows ``first_row ...`` of an endless table whose every row is a permutation of ``range(width)``.

    Row ``r`` depends on ``key``, ``r`` and ``width`` alone. Each entry's rank is the rank of 64 bits from a
    counter-based mixer (SplitMix64), whose lowest bits are replaced by the entry itself: ties cannot occur,
    so the result does not depend on the sorting algorithm.

    Returns:
        ``int64[num_rows, width]``.

    >>> rows = shuffled_rows(key=1, first_row=0, num_rows=2, width=4)
    >>> sorted(rows[0].tolist()), bool((shuffled_rows(1, 1, 1, 4)[0] == rows[1]).all())
    ([0, 1, 2, 3], True)
    """
    entry_bits = np.uint64((1 << max(1, (width - 1).bit_length())) - 1)
    start = (key + first_row * width * int(_GAMMA)) & 0xFFFFFFFFFFFFFFFF
    bits = np.arange(1, num_rows * width + 1, dtype=np.uint64)
    bits *= _GAMMA
    bits += np.uint64(start)
    scratch = bits >> np.uint64(30)
    bits ^= scratch
    bits *= _MULTIPLY_64[0]
    np.right_shift(bits, np.uint64(27), out=scratch)
    bits ^= scratch
    bits *= _MULTIPLY_64[1]
    np.right_shift(bits, np.uint64(31), out=scratch)
    bits ^= scratch
    rows = bits.reshape(num_rows, width)
    rows &= ~entry_bits
    rows |= np.arange(width, dtype=np.uint64)
    rows.sort(axis=1)
    rows &= entry_bits
    return rows.view(np.int64)


class Permutation:
    """A keyed bijection of ``range(size)``, each element computable on its own.

    >>> permutation = Permutation(key=3, size=5)
    >>> sorted(permutation(0, 5).tolist())
    [0, 1, 2, 3, 4]
    >>> bool((permutation(2, 4) == permutation(0, 5)[2:4]).all())
    True
    """

    __slots__ = ("_cipher", "_table", "size")

    def __init__(self, key: int, size: int) -> None:
        self.size = size
        self._table = shuffled_rows(key, 0, 1, size)[0] if size <= LARGEST_SORTED else None
        self._cipher = None if size <= LARGEST_SORTED else _Feistel(key, size)

    def __call__(self, start: int, stop: int) -> Int64s:
        """Return the images of ``start, start + 1, ..., stop - 1``, with ``0 <= start <= stop <= size``."""
        if self._table is not None:
            part: Int64s = self._table[start:stop]
            return part
        assert self._cipher is not None
        return self._cipher(start, stop)


class _Feistel:
    """A Feistel network on ``range(left_size * right_size)``, cycle-walked down to ``range(size)``.

    The left half has a power-of-two size near the square root, the right half just enough values to cover
    ``size``: less than one number in the square root of ``size`` lies outside, so walking (applying the
    bijection again until the result is inside, which keeps it a bijection) is rare. The left half is changed
    by exclusive or, the right by addition modulo its size; each is undone by the same step run backwards, so
    each is a bijection for any round function (Luby and Rackoff 1988; Black and Rogaway 2002 for walking).
    """

    __slots__ = ("_left_bits", "_right_size", "_round_keys", "_size")

    def __init__(self, key: int, size: int) -> None:
        self._size = size
        self._left_bits = size.bit_length() // 2
        self._right_size = -(-size >> self._left_bits)
        rounds = (derive(key, "round", number) for number in range(2 * _ROUND_PAIRS))
        self._round_keys = [(np.uint32(bits & 0xFFFFFFFF), np.uint32(bits >> 32)) for bits in rounds]

    def __call__(self, start: int, stop: int) -> Int64s:
        numbers = self._encipher(np.arange(start, stop, dtype=np.int64))
        outside = np.flatnonzero(numbers >= self._size)
        while outside.size:
            walked = self._encipher(numbers[outside])
            numbers[outside] = walked
            outside = outside[walked >= self._size]
        return numbers

    def _encipher(self, numbers: Int64s) -> Int64s:
        left = numbers.astype(np.uint32)
        mask = np.uint32((1 << self._left_bits) - 1)
        left &= mask
        right = (numbers >> self._left_bits).astype(np.uint32)
        bits, scratch = np.empty_like(left), np.empty_like(left)
        wide = np.empty(left.shape, dtype=np.uint64)
        right_size, modulus = np.uint64(self._right_size), np.uint32(self._right_size)
        for left_keys, right_keys in zip(self._round_keys[::2], self._round_keys[1::2], strict=True):
            _mix(right, left_keys, bits, scratch)
            bits &= mask
            left ^= bits
            _mix(left, right_keys, bits, scratch)
            # The high half of a 32 x 32 bit product is a number below right_size.
            np.multiply(bits, right_size, out=wide, dtype=np.uint64)
            wide >>= np.uint64(32)
            np.copyto(bits, wide, casting="unsafe")
            right += bits
            np.subtract(right, modulus, out=scratch)
            # Of x and x - size modulo 2^32, the smaller is the one inside the range.
            np.minimum(right, scratch, out=right)
        result = right.astype(np.int64)
        result <<= self._left_bits
        result |= left
        return result


def _mix(half: UInt32s, keys: tuple[np.uint32, np.uint32], out: UInt32s, scratch: UInt32s) -> None:
    """Write 32 keyed bits for every number of ``half`` into ``out``."""
    np.bitwise_xor(half, keys[0], out=out)
    np.multiply(out, _MULTIPLY_32[0], out=out)
    np.right_shift(out, np.uint32(15), out=scratch)
    np.bitwise_xor(out, scratch, out=out)
    np.bitwise_xor(out, keys[1], out=out)
    np.multiply(out, _MULTIPLY_32[1], out=out)
    np.right_shift(out, np.uint32(16), out=scratch)
    np.bitwise_xor(out, scratch, out=out)
