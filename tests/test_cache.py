"""Pieces at hand: within the budget, never the wrong bytes, and memory that is used again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.cache import Allocate, BufferPool, CachedPiece, Fetch, MemoryCache, PieceCache
from curriculum_sampler.cache_folder import FolderCache
from curriculum_sampler.fetcher import Fetcher

KEYS = ("0a", "0b", "0c", "0d", "0e")


def bringing(data: bytes) -> Fetch:
    """Fetches these bytes."""

    def fetch(allocate: Allocate) -> memoryview:
        buffer = allocate(len(data))
        buffer[:] = data
        return buffer

    return fetch


def never(allocate: Allocate) -> memoryview:
    raise AssertionError("It was at hand.")


def content(piece: CachedPiece, num_bytes: int) -> bytes:
    """All bytes of a piece."""
    assert piece.hold()
    try:
        return bytes(piece.read(0, num_bytes))
    finally:
        piece.let_go()


def address(piece: CachedPiece) -> int:
    return int(np.frombuffer(piece.read(0, 1), np.uint8).ctypes.data)


@pytest.fixture(params=["memory", "folder"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> PieceCache:
    if request.param == "memory":
        return MemoryCache(num_bytes=100)
    return FolderCache(tmp_path / "cache", num_bytes=100)


def test_a_piece_is_fetched_once_and_then_at_hand(cache: PieceCache) -> None:
    assert cache.get("0a") is None
    first = cache.obtain("0a", bringing(b"shirt"))
    again, got = cache.obtain("0a", never), cache.get("0a")
    assert got is not None
    assert [content(piece, 5) for piece in (first, again, got)] == [b"shirt"] * 3


def test_a_part_of_a_piece_is_read_alone(cache: PieceCache) -> None:
    piece = cache.obtain("0a", bringing(bytes(range(50))))
    assert piece.hold()
    assert bytes(piece.read(7, 11)) == bytes([7, 8, 9, 10])
    assert bytes(piece.read(48, 60)) == bytes([48, 49])  # there is no more
    piece.let_go()


def test_a_fetch_that_fails_keeps_nothing_and_is_tried_again(cache: PieceCache) -> None:
    def fail(allocate: Allocate) -> memoryview:
        allocate(5)[:3] = b"shi"
        raise OSError("the line went dead")

    with pytest.raises(OSError, match="the line went dead"):
        cache.obtain("0a", fail)
    assert cache.get("0a") is None
    assert content(cache.obtain("0a", bringing(b"shirt")), 5) == b"shirt"


def test_the_oldest_go_first_and_the_needed_never(cache: PieceCache) -> None:
    cache.trim({"0a"})
    for key in KEYS[:4]:
        cache.obtain(key, bringing(key.encode() * 20))  # 40 bytes each, 100 fit
    cache.trim({"0a"})
    at_hand = [key for key in KEYS if cache.get(key)]
    assert at_hand == ["0a", "0d"]
    cache.trim({"0a", "0d"})
    cache.obtain("0e", bringing(b"e" * 100))
    cache.trim({"0a", "0d", "0e"})
    assert [key for key in KEYS if cache.get(key)] == ["0a", "0d", "0e"]  # needed, whatever the budget says
    cache.trim(())
    assert not cache.get("0a")
    assert not cache.get("0d")


def test_what_was_just_fetched_can_be_held_even_where_others_fill_the_budget(cache: PieceCache) -> None:
    """Otherwise its reader would fetch it again and again, for ever."""
    cache.trim({"0a"})
    cache.obtain("0a", bringing(b"a" * 100))
    piece = cache.obtain("0b", bringing(b"b" * 50))
    assert content(piece, 50) == b"b" * 50
    cache.trim({"0a"})
    assert cache.get("0b") is None
    assert cache.get("0a")


def test_a_piece_in_use_is_read_to_the_end_after_it_was_dropped(cache: PieceCache) -> None:
    piece = cache.obtain("0a", bringing(b"a" * 100))
    assert piece.hold()
    held = piece.read(0, 100)
    for key in KEYS[1:]:
        cache.obtain(key, bringing(key.encode() * 30))
    cache.trim(())
    assert cache.get("0a") is None
    assert bytes(held) == bytes(piece.read(0, 100)) == b"a" * 100
    piece.let_go()


@st.composite
def doings(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What readers and the loader do to a cache, in some order."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("obtain"), st.tuples(st.sampled_from(KEYS), st.integers(1, 60))),
                st.tuples(st.just("hold"), st.sampled_from(KEYS)),
                st.tuples(st.just("let go"), st.integers(0, 10)),
                st.tuples(st.just("trim"), st.sets(st.sampled_from(KEYS))),
            ),
            max_size=30,
        )
    )


@given(doings())
def test_whatever_is_fetched_held_and_dropped_no_held_byte_changes(doings: list[tuple[str, Any]]) -> None:
    budget = 100
    cache = MemoryCache(budget)
    latest = dict[str, bytes]()  # what was fetched last under a key
    held = list[tuple[CachedPiece, bytes]]()
    for number, (what, of) in enumerate(doings):
        if what == "obtain":
            key, size = of
            brought = bytes([number]) * size
            is_new = cache.get(key) is None
            piece = cache.obtain(key, bringing(brought) if is_new else never)
            latest[key] = brought if is_new else latest[key]
            assert content(piece, 60) == latest[key]
        elif what == "hold":
            found = cache.get(of)
            if found is not None and found.hold():
                held.append((found, latest[of]))
        elif what == "let go" and held:
            held.pop(of % len(held))[0].let_go()
        elif what == "trim":
            cache.trim(of)
            at_hand = [key for key in KEYS if cache.get(key)]
            assert sum(len(latest[key]) for key in at_hand) <= budget or of.issuperset(at_hand)
        for piece, expected in held:
            assert bytes(piece.read(0, 60)) == expected


def test_memory_is_used_again_but_only_when_the_last_reader_has_let_go() -> None:
    cache = MemoryCache(num_bytes=10)
    piece = cache.obtain("0a", bringing(b"a" * 10))
    assert piece.hold()
    assert piece.hold()
    place = address(piece)
    cache.obtain("0b", bringing(b"b" * 10))
    cache.trim({"0b"})  # drops it
    assert cache.get("0a") is None
    piece.let_go()
    others = [cache.obtain(key, bringing(b"x" * 10)) for key in KEYS[2:]]
    assert place not in [address(other) for other in others]
    assert bytes(piece.read(0, 10)) == b"a" * 10
    piece.let_go()
    assert address(cache.obtain("ff", bringing(b"f" * 10))) == place


def test_what_is_gone_cannot_be_held() -> None:
    cache = MemoryCache(num_bytes=10)
    piece = cache.obtain("0a", bringing(b"a" * 10))
    cache.obtain("0b", bringing(b"b" * 10))
    cache.trim({"0b"})
    assert not piece.hold()


def test_buffers_of_a_like_length_serve_each_other_and_no_more_than_some_are_kept() -> None:
    pool = BufferPool()
    mib = 1 << 20
    assert [len(pool.take(size)) for size in (0, 1, mib, mib + 1)] == [mib, mib, mib, 2 * mib]
    buffers = [pool.take(5) for _ in range(40)]
    for buffer in buffers:
        pool.give(buffer)
    taken = [pool.take(mib - 1) for _ in range(40)]
    again = {id(buffer) for buffer in buffers} & {id(buffer) for buffer in taken}
    assert 8 <= len(again) < 40  # some, and not without end


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_readers_in_many_threads_see_no_byte_of_another_piece(kind: str, tmp_path: Path) -> None:
    """The law that protects from silent corruption: held bytes stay, however often memory is used again."""
    num_keys, size = 12, 300_000
    budget = 4 * size
    cache: PieceCache = MemoryCache(budget) if kind == "memory" else FolderCache(tmp_path / "cache", budget)
    fetcher: Fetcher[CachedPiece] = Fetcher(4)
    expected = [bytes([number]) * size for number in range(num_keys)]
    seen = list[bool]()
    start = threading.Barrier(4)

    def read(reader: int) -> None:
        rng = np.random.Generator(np.random.Philox(reader))
        start.wait(60)
        for number in rng.integers(num_keys, size=60).tolist():
            key = f"{number:02x}"
            while True:
                piece = cache.get(key)
                if piece is None:
                    fetch = bringing(expected[number])
                    piece = fetcher.ask(key, lambda key=key, fetch=fetch: cache.obtain(key, fetch)).result(20)  # type: ignore[misc]
                if piece.hold():
                    break
            found = piece.read(0, size)
            cache.trim({key})
            seen.append(found == expected[number])
            piece.let_go()

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive()
    fetcher.close()
    assert len(seen) == 240
    assert all(seen)
