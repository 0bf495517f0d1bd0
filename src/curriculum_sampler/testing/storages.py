"""What every storage promises, tried on one of yours."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ..errors import StorageError
from ..storage import ObjectStat, Storage, read_all
from .comparing import shown

_CONTENT = b"0123456789"


def check_storage(make_storage: Callable[[], Storage]) -> None:
    """Check that a storage keeps the laws which everything above it rests on (see ``Storage``).

    Objects are written whole, listed sorted, read in any range and by several threads; what is absent, too short, replaced
    meanwhile or outside the root is an error and never a partly filled buffer; a pickled copy reads the same.

    Args:
        make_storage: Makes a storage that can be written to and holds nothing; called once for each law. A few small
            objects are left in each.

    Raises:
        AssertionError: The message names the storage, the call, what was expected and what came.

    >>> from curriculum_sampler.testing import MemoryStorage
    >>> check_storage(MemoryStorage)
    """
    for law in (
        _says_what_it_is,
        _lists_what_it_holds,
        _reads_any_range,
        _reads_for_many_threads_at_once,
        _replaces_whole_objects,
        _keeps_what_was_given,
        _refuses_what_is_absent,
        _refuses_what_is_too_short,
        _refuses_keys_that_leave_its_root,
        _travels_to_workers,
    ):
        storage = make_storage()
        try:
            law(storage)
        except AssertionError:
            raise
        except Exception as error:
            _hold(storage, law.__name__.strip("_").replace("_", " "), False, "no error", repr(error))


def _says_what_it_is(storage: Storage) -> None:
    for name in ("url", "parallel_reads", "exists", "stat", "retries", "read_into", "write", "list"):
        _hold(storage, name, hasattr(storage, name), "to be there, as Storage says", "nothing")
    url, retries = storage.url, storage.retries
    fits = url.endswith("://") or not url.endswith("/")
    _hold(storage, "url", fits, "no slash at the end", url)
    _hold(storage, "parallel_reads", storage.parallel_reads >= 1, "1 or more", storage.parallel_reads)
    _hold(storage, "retries", all(count >= 0 for count in retries.values()), "counts", retries)


def _lists_what_it_holds(storage: Storage) -> None:
    _expect(storage, "list() of nothing", [], storage.list())
    for key in ("b.txt", "a/2.txt", "a/10.txt", "ab/1.txt"):
        storage.write(key, key.encode())
    _expect(storage, "list()", ["a/10.txt", "a/2.txt", "ab/1.txt", "b.txt"], storage.list())
    _expect(storage, "list('a/')", ["a/10.txt", "a/2.txt"], storage.list("a/"))
    _expect(storage, "list('a')", ["a/10.txt", "a/2.txt", "ab/1.txt"], storage.list("a"))
    _expect(storage, "list('c/')", [], storage.list("c/"))
    for key, is_there in (("b.txt", True), ("a/2.txt", True), ("a", False), ("c.txt", False), ("a/2", False)):
        _expect(storage, f"exists({key!r})", is_there, storage.exists(key))


def _reads_any_range(storage: Storage) -> None:
    storage.write("a/b.bin", _CONTENT)
    stat = storage.stat("a/b.bin")
    _expect(storage, "stat('a/b.bin').num_bytes", len(_CONTENT), stat.num_bytes)
    for start in range(len(_CONTENT) + 1):
        for stop in range(start, len(_CONTENT) + 1):
            buffer = bytearray(b"-" * (stop - start + 2))
            found = storage.read_into("a/b.bin", memoryview(buffer)[1:-1], start)
            call = f"read_into('a/b.bin', {stop - start} bytes, offset={start})"
            _expect(storage, call, b"-" + _CONTENT[start:stop] + b"-", bytes(buffer))
            _expect(storage, f"{call} returned", stat, ObjectStat(found.num_bytes, found.etag))


def _reads_for_many_threads_at_once(storage: Storage) -> None:
    storage.write("a.bin", bytes(range(256)) * 16)

    def read(number: int) -> bytes:
        buffer = bytearray(64)
        storage.read_into("a.bin", memoryview(buffer), number * 64)
        return bytes(buffer)

    with ThreadPoolExecutor(4) as threads:
        for number, came in enumerate(threads.map(read, range(64))):
            expected = bytes(range(number % 4 * 64, number % 4 * 64 + 64))
            _expect(
                storage, f"read_into('a.bin', 64 bytes, offset={number * 64}) in a thread", expected, came
            )


def _replaces_whole_objects(storage: Storage) -> None:
    storage.write("a.bin", b"the first version")
    before = storage.stat("a.bin")
    storage.write("a.bin", b"other")
    _expect(storage, "read again after another write('a.bin')", b"other", read_all(storage, "a.bin"))
    _expect(storage, "list() after it", ["a.bin"], storage.list())
    after = storage.stat("a.bin")
    _hold(storage, "stat('a.bin').etag after it", after.etag != before.etag, "another", "the same as before")
    _refuses(
        storage,
        "read_into('a.bin', etag=that of the object before)",
        partial(storage.read_into, "a.bin", memoryview(bytearray(2)), 0, before.etag),
    )
    buffer = bytearray(2)
    storage.read_into("a.bin", memoryview(buffer), 1, after.etag)
    _expect(storage, "read_into('a.bin', 2 bytes, offset=1, etag=its own)", b"th", bytes(buffer))


def _keeps_what_was_given(storage: Storage) -> None:
    data = bytearray(b"hello")
    storage.write("a.bin", data)
    data[:] = b"later"
    _expect(
        storage,
        "what was written, when the caller used its buffer again",
        b"hello",
        read_all(storage, "a.bin"),
    )
    storage.write("empty.bin", b"")
    _expect(storage, "stat('empty.bin').num_bytes", 0, storage.stat("empty.bin").num_bytes)
    _expect(storage, "exists('empty.bin')", True, storage.exists("empty.bin"))


def _refuses_what_is_absent(storage: Storage) -> None:
    storage.write("no/other.tar", b"x")
    for call, ask in (
        ("stat('no/such.tar')", partial(storage.stat, "no/such.tar")),
        (
            "read_into('no/such.tar', 1 byte)",
            partial(storage.read_into, "no/such.tar", memoryview(bytearray(1))),
        ),
    ):
        told = _refuses(storage, f"{call}, which is absent", ask)
        place = f"{storage.url}/no/such.tar"
        _hold(storage, f"the message of {call}", place in told, f"one that names {place}", told)


def _refuses_what_is_too_short(storage: Storage) -> None:
    storage.write("a.bin", _CONTENT)
    for offset, count in ((0, 11), (8, 4), (10, 1), (50, 1)):
        _refuses(
            storage,
            f"read_into('a.bin', {count} bytes, offset={offset}) of an object of {len(_CONTENT)} bytes",
            partial(storage.read_into, "a.bin", memoryview(bytearray(count)), offset),
        )


def _refuses_keys_that_leave_its_root(storage: Storage) -> None:
    for key in ("", "/etc/passwd", "a/../../b", "..", "a//b", "a/./b", "a/"):
        buffer = memoryview(bytearray(1))
        _refuses(storage, f"write({key!r})", partial(storage.write, key, b"x"), ValueError)
        _refuses(storage, f"read_into({key!r})", partial(storage.read_into, key, buffer), ValueError)


def _travels_to_workers(storage: Storage) -> None:
    storage.write("a.bin", b"hello")
    copy = pickle.loads(pickle.dumps(storage))
    _expect(storage, "url of a pickled copy", storage.url, copy.url)
    _expect(storage, "'a.bin' read by a pickled copy", b"hello", read_all(copy, "a.bin"))


def _expect(storage: Storage, call: str, expected: object, came: object) -> None:
    _hold(storage, call, came == expected, shown(expected), shown(came))


def _hold(storage: Storage, call: str, is_so: bool, expected: str, came: object) -> None:
    if not is_so:
        name = f"{type(storage).__name__} at {getattr(storage, 'url', 'no url')}"
        raise AssertionError(f"{name}: {call}\n  expected: {expected}\n  came:     {came}")


def _refuses(
    storage: Storage, call: str, ask: Callable[[], object], also: type[Exception] = StorageError
) -> str:
    try:
        came: object = shown(ask())
    except (StorageError, also) as error:
        return str(error)
    except Exception as error:
        came = repr(error)
    _hold(storage, call, False, "a StorageError", came)
    return ""
