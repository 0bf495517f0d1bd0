"""The testing kit finds what is broken: each check passes what is good, and fails each way to be wrong, saying where."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import curriculum_sampler as cs
from curriculum_sampler.errors import AbsentError
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.storage import ObjectStat
from curriculum_sampler.testing import (
    MemoryStorage,
    check_exact,
    check_rank_free,
    check_resume,
    check_storage,
    synthetic_manifest,
    synthetic_sample,
)
from curriculum_sampler.testing.comparing import same, shown

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=4),
        cs.Stage("hard", {"easy": 1, "hard": 3}, steps=8, ramp=4),
    ]
)
PLAN = SCHEDULE.plan({"easy": 11, "hard": 7}, batch_size=8)


def fails(message: str) -> Any:
    return pytest.raises(AssertionError, match=re.compile(message, re.DOTALL))


class Counting:
    """A good loader: batches of numbers; each broken one below changes one thing."""

    def __init__(self, num_batches: int = 7) -> None:
        self.num_batches = num_batches
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        while self.position < self.num_batches:
            self.position += 1
            yield self.batch(self.position - 1)

    def batch(self, number: int) -> Any:
        return {"x": np.arange(3 * number, 3 * number + 3)}

    def state_dict(self) -> Any:
        return {"position": self.position}

    def load_state_dict(self, state: Any) -> None:
        self.position = state["position"]


class Losing(Counting):
    """Counts what was fetched ahead, so that a batch is lost."""

    def state_dict(self) -> Any:
        return {"position": min(self.position + bool(self.position), self.num_batches)}


class Repeating(Counting):
    def state_dict(self) -> Any:
        return {"position": max(0, self.position - 1)}


class BeginningAnew(Counting):
    def load_state_dict(self, state: Any) -> None:
        pass


class Swapping(Counting):
    """The right samples in the wrong order, after a resume."""

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.batch = lambda number: {"x": np.arange(3 * number, 3 * number + 3)[::-1]}


class CountingFromTheResume(Counting):
    """A second interruption forgets the first."""

    def __init__(self) -> None:
        super().__init__()
        self.resumed_at = 0

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.resumed_at = self.position

    def state_dict(self) -> Any:
        return {"position": self.position - self.resumed_at}


class Sharing(Counting):
    """The state that was given out goes on with the loader."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"position": 0}

    def __iter__(self) -> Iterator[Any]:
        while self.state["position"] < self.num_batches:
            self.state["position"] += 1
            yield self.batch(self.state["position"] - 1)

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = dict(state)


class Random(Counting):
    def batch(self, number: int) -> Any:
        return np.random.default_rng().random(3)


class GoingOn(Counting):
    """One batch too many, once resumed."""

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.num_batches += 1


class ForgettingTheEnd(Counting):
    """A state taken at the very end begins anew."""

    def state_dict(self) -> Any:
        return {"position": self.position % self.num_batches}


def test_what_resumes_exactly_passes() -> None:
    check_resume(Counting)
    check_resume(lambda: Counting(100))
    check_resume(lambda: cs.MixtureSampler(PLAN, 17))
    check_resume(lambda: cs.MixtureSampler(PLAN, 17, rank=1, world_size=2, grad_accumulation=1), stops=[3])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (
            Losing,
            r"Stopped after 1 of 7 .* batch 1 differs.*expected: \{'x': array\(\[3, 4, 5\]\)\}.*came: .*6, 7, 8",
        ),
        (Repeating, r"Stopped after 1 of 7 .* batch 1 differs.*expected: .*3, 4, 5.*came: .*0, 1, 2"),
        (BeginningAnew, r"Stopped after 1 of 7 .* batch 1 differs"),
        (Swapping, r"batch 0 differs.*expected: .*0, 1, 2.*came: .*2, 1, 0"),
        (
            CountingFromTheResume,
            r"Interrupted at \[0, 1, 2\] of 7 batches, resumed each time: batch 2 differs",
        ),
        (Sharing, r"Stopped after 1 of 7 .*expected: .*3, 4, 5.*came: .*6, 7, 8"),
        (Random, r"A second run from the beginning is another one: batch 0 differs"),
        (GoingOn, r"it went on after the last batch"),
        (ForgettingTheEnd, r"Stopped after 7 of 7.*it went on after the last batch.*came: .*0, 1, 2"),
        (lambda: Counting(0), r"no batch at all"),
    ],
)
def test_what_does_not_resume_exactly_is_found(loader: Callable[[], Any], message: str) -> None:
    with fails(message):
        check_resume(loader)


def test_an_early_end_after_a_resume_is_found() -> None:
    with fails(r"Stopped after 0 of 7.*it ended before batch 5.*expected: .*15, 16, 17"):
        check_resume(Counting, make_resumed=lambda: Counting(5))


def test_another_number_of_batches_is_no_stop() -> None:
    with fails("Cannot stop after 8 of 7"):
        check_resume(Counting, stops=[8])


def test_an_endless_loader_is_looked_at_as_far_as_is_asked() -> None:
    check_resume(lambda: Counting(10**9), num_batches=9)
    with fails("batch 1 differs"):
        check_resume(lambda: Losing(10**9), num_batches=9)


def test_a_state_that_no_checkpoint_can_hold_is_found() -> None:
    class Holding(Counting):
        def state_dict(self) -> Any:
            return {"position": self.position, "iterator": (n for n in [])}

    with fails(r"state_dict\(\) gave what no checkpoint can hold \(TypeError.*generator"):
        check_resume(Holding)


def test_batches_in_memory_that_is_used_again_are_compared_as_they_came() -> None:
    memory = np.zeros(3, np.int64)

    class Reusing(Counting):
        def batch(self, number: int) -> Any:
            memory[:] = number
            return memory

    class ReusingAndLosing(Losing, Reusing):
        pass

    check_resume(Reusing)
    with fails("batch 1 differs"):
        check_resume(ReusingAndLosing)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),
        ([1, 2], (1, 2)),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"a": [1.0]}, {"a": [1.5]}),
        (1, True),
        ("a", "b"),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.array([0.0, np.nan]), np.array([np.nan, 0.0])),
        (np.array(["a"]), np.array(["b"])),
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (torch.zeros(2), np.zeros(2, np.float32)),
    ],
)
def test_batches_are_the_same_only_if_all_their_parts_are(one: Any, other: Any) -> None:
    assert not same(one, other)
    for value in (one, other):
        assert same(value, pickle.loads(pickle.dumps(value)))
    assert len(shown({"a": [np.zeros(10_000)] * 50})) < 1000


def buckets_of(plan: cs.Plan) -> list[list[str]]:
    sampler = cs.MixtureSampler(plan, 17)
    return [[draw.bucket for draw in sampler.draws(step=step)] for step in range(plan.total_steps)]


def test_the_mixture_of_a_sampler_is_exact() -> None:
    check_exact(cs.MixtureSampler(PLAN, 17), PLAN)
    check_exact(buckets_of(PLAN), PLAN)
    check_exact(buckets_of(PLAN)[:7], PLAN)


def test_a_count_that_is_off_is_found() -> None:
    batches = buckets_of(PLAN)
    # Step 9 wants 2 easy and 6 hard: whole numbers, so that one off is the bound, which is never reached.
    assert sorted(batches[9]) == ["easy"] * 2 + ["hard"] * 6
    batches[9] = ["easy"] * 3 + ["hard"] * 5
    with fails(
        r"Step 9 \(stage 'hard'\): bucket 'easy' was drawn 3 times, where its share wants 2, and less than 1"
    ):
        check_exact(batches, PLAN)


def test_a_drift_that_no_batch_shows_is_found() -> None:
    plan = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 1}, steps=8)]).plan(
        {"easy": 5, "hard": 5}, batch_size=3
    )
    check_exact(buckets_of(plan), plan)
    with fails(
        r"Steps 0 to 1 \(stage 'all'\), together: bucket 'easy' was drawn 4 times, where its share wants 3"
    ):
        check_exact([["easy", "easy", "hard"]] * 8, plan)


def test_a_drift_in_a_ramp_is_found() -> None:
    plan = cs.StageSchedule(
        [cs.Stage("easy", {"easy": 1}, steps=1), cs.Stage("ramp", {"hard": 1}, steps=100, ramp=100)]
    ).plan({"easy": 5, "hard": 5}, batch_size=4)
    batches = buckets_of(plan)
    check_exact(batches, plan)
    restarted = [batches[0]] + [
        ["hard"] * (4 * step // 100) + ["easy"] * (4 - 4 * step // 100) for step in range(100)
    ]
    with fails(r"Steps 1 to \d+ \(stage 'ramp'\), together: bucket 'easy'"):
        check_exact(restarted, plan)


def test_a_bucket_of_share_zero_is_found() -> None:
    batches = buckets_of(PLAN)
    batches[2][5] = "hard"
    with fails(r"Step 2 \(stage 'easy'\): bucket 'hard' was drawn 1 times, where its share is 0"):
        check_exact(batches, PLAN)


def test_batches_of_another_plan_are_found() -> None:
    batches = buckets_of(PLAN)
    with fails("Step 0: the global batch holds 4 draws, where the plan has 8"):
        check_exact([batch[:4] for batch in batches], PLAN)
    with fails("There is a batch for step 12, but the plan ends before it"):
        check_exact([*batches, batches[-1]], PLAN)
    with fails("no batches"):
        check_exact([], PLAN)


def test_the_ranks_of_a_sampler_share_the_global_batch() -> None:
    check_rank_free(lambda rank, size: cs.MixtureSampler(PLAN, 17, rank, size), world_sizes=(1, 2, 4, 8))
    check_rank_free(
        lambda rank, size: cs.MixtureSampler(PLAN, 17, rank, size, grad_accumulation=2), grad_accumulation=2
    )


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (lambda rank, size: [[0, 1], [2, 3]], r"Step 0 with world_size=2: .*expected: \[\].*came: +\[0, 1\]"),
        (
            lambda rank, size: [[4 * step, 1] if size == 1 else [4 * step + rank] for step in range(2)],
            r"Step 1 .*expected: \[1\].*came: +\[5\]",
        ),
        (
            lambda rank, size: [[0, 1], [2, 3]] if size == 1 else [[rank], [2 + rank]][: 2 - rank],
            r"Step 1 with world_size=2: rank 1 has ended, others have not",
        ),
        (lambda rank, size: [[0, 1, 2]] if size == 1 else [[[0, 1], [2]][rank]], r"hold \[2, 1\] samples"),
        (
            lambda rank, size: [[0, 1]] * 2 if size == 1 else [[rank]],
            r"Step 1 .*the ranks have ended, but not the other",
        ),
        (lambda rank, size: [[0, 1]] if size == 1 else [[rank]] * 2, r"Step 1 .*one rank alone has ended"),
        (lambda rank, size: [], "No rank delivered a batch"),
    ],
)
def test_ranks_that_do_not_share_the_global_batch_are_found(ranks: Any, message: str) -> None:
    with fails(message):
        check_rank_free(ranks)


def test_a_step_that_ends_between_its_micro_batches_is_found() -> None:
    with fails("rank 0 has ended, within the step, after 1 micro-batches"):
        check_rank_free(lambda rank, size: [[rank]] * 3, world_sizes=[1], grad_accumulation=2)


def test_good_storages_pass(tmp_path: Path) -> None:
    check_storage(MemoryStorage)
    roots = iter(tmp_path / str(number) for number in range(99))
    check_storage(lambda: LocalStorage(next(roots)))


class Slashed(MemoryStorage):
    url = "memory://broken/"


class WithoutReads(MemoryStorage):
    parallel_reads = 0


class Unsorted(MemoryStorage):
    def list(self, prefix: str = "") -> list[str]:
        return super().list(prefix)[::-1]


class Foldery(MemoryStorage):
    """Takes the prefix for a folder."""

    def list(self, prefix: str = "") -> list[str]:
        return [key for key in super().list() if not prefix or key.startswith(prefix.rstrip("/") + "/")]


class FindingFolders(MemoryStorage):
    def exists(self, key: str) -> bool:
        return bool(self.list(key))


class Short(MemoryStorage):
    """Fills what there is, and says nothing."""

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        there = len(self._get(key)[offset : offset + len(buffer)])
        return super().read_into(key, buffer[:there], offset, etag)


class OffByOne(MemoryStorage):
    """The end of a range is taken for the last byte of it."""

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        found = super().read_into(key, buffer, offset, etag)
        if buffer and offset:
            buffer[-1] = 0
        return found


class Deaf(MemoryStorage):
    """Reads whatever is there now, whichever was asked for."""

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        return super().read_into(key, buffer, offset)


class OneEtag(MemoryStorage):
    def stat(self, key: str) -> ObjectStat:
        return ObjectStat(super().stat(key).num_bytes, "same")

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        super().read_into(key, buffer, offset)
        return self.stat(key)


class Sloppy(MemoryStorage):
    """Shares one file position among threads."""

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        if threading.current_thread() is not threading.main_thread() and offset:
            offset -= 1
        return super().read_into(key, buffer, offset, etag)


class Aliasing(MemoryStorage):
    def write(self, key: str, data: bytes | bytearray) -> None:
        super().write(key, data)
        self.objects[key] = data


class Appending(MemoryStorage):
    def write(self, key: str, data: bytes | bytearray) -> None:
        super().write(key, self.objects.get(key, b"") + data)


class WithoutEmpties(MemoryStorage):
    def write(self, key: str, data: bytes | bytearray) -> None:
        if data:
            super().write(key, data)


class Silent(MemoryStorage):
    def stat(self, key: str) -> ObjectStat:
        return super().stat(key) if key in self.objects else ObjectStat(0, "")


class Raw(MemoryStorage):
    """Lets the errors of what it is made of through."""

    def _get(self, key: str) -> bytes:
        return self.objects[key]


class Nameless(MemoryStorage):
    def _get(self, key: str) -> bytes:
        if key not in self.objects:
            raise AbsentError("Not found.")
        return self.objects[key]


class Trusting(MemoryStorage):
    def write(self, key: str, data: bytes | bytearray) -> None:
        self.objects[key] = bytes(data)


class Staying(MemoryStorage):
    """A copy that leaves the objects behind."""

    def __reduce__(self) -> Any:
        return (Staying, (self.name,))


class Unpicklable(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.lock = (n for n in [])


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (Slashed, r"url\n  expected: no slash at the end\n  came: +memory://broken/"),
        (WithoutReads, r"parallel_reads\n  expected: 1 or more\n  came: +0"),
        (Unsorted, r"list\(\)\n  expected: \['a/10.txt', .*came: +\['b.txt'"),
        (Foldery, r"list\('a'\)\n  expected: \['a/10.txt', 'a/2.txt', 'ab/1.txt'\]"),
        (FindingFolders, r"exists\('a'\)\n  expected: False\n  came: +True"),
        (
            Short,
            r"11 bytes, offset=0\) of an object of 10 bytes\n  expected: a StorageError\n  came: +ObjectStat",
        ),
        (OffByOne, r"read_into\('a/b.bin', 1 bytes, offset=1\)\n  expected: b'-1-'"),
        (Deaf, r"etag=that of the object before\)\n  expected: a StorageError"),
        (OneEtag, r"etag after it\n  expected: another"),
        (Sloppy, r"offset=64\) in a thread"),
        (Aliasing, r"used its buffer again\n  expected: b'hello'\n  came: +b'later'"),
        (Appending, r"after another write\('a.bin'\)\n  expected: b'other'"),
        (
            WithoutEmpties,
            r"keeps what was given\n  expected: no error\n  came: +AbsentError.*empty.bin does not exist",
        ),
        (Silent, r"stat\('no/such.tar'\), which is absent\n  expected: a StorageError\n  came: +ObjectStat"),
        (Raw, r"stat\('no/such.tar'\), which is absent\n  expected: a StorageError\n  came: +KeyError"),
        (Nameless, r"the message of stat\('no/such.tar'\)\n  expected: one that names memory:///no/such.tar"),
        (Trusting, r"write\(''\)\n  expected: a StorageError"),
        (
            Staying,
            r"travels to workers\n  expected: no error\n  came: +AbsentError",
        ),
        (Unpicklable, r"travels to workers\n  expected: no error\n  came: +TypeError"),
    ],
)
def test_a_storage_that_breaks_a_law_is_found(storage: Callable[[], Any], message: str) -> None:
    with fails(rf"{storage.__name__} at .*{message}"):
        check_storage(storage)


def test_what_is_no_storage_is_told_what_it_lacks() -> None:
    with fails(r"object at no url: url\n  expected: to be there"):
        check_storage(object)  # type: ignore[arg-type]


def test_synthetic_data_are_what_their_samples_say() -> None:
    manifest = synthetic_manifest({"easy": 20, "hard": 3}, samples_per_shard=8)
    assert manifest.bucket_sizes == {"easy": 20, "hard": 3}
    assert len(manifest.buckets["easy"]) == 3
    assert manifest.difficulties == {"easy": (0.0, 0.5), "hard": (0.5, 1.0)}
    dataset = cs.CurriculumDataset(manifest)
    for draw in (cs.Draw("easy", 19), cs.Draw("hard", 0)):
        expected = synthetic_sample(*draw) | {"__bucket__": draw.bucket, "__index__": draw.index}
        assert same({**dataset[draw]}, {name: expected[name] for name in dataset[draw]})
    assert (
        synthetic_manifest({"easy": 20, "hard": 3}, samples_per_shard=8).fingerprint == manifest.fingerprint
    )
    assert not same(synthetic_sample("easy", 1)["npy"], synthetic_sample("easy", 2)["npy"])


def test_synthetic_data_go_where_they_are_told(tmp_path: Path) -> None:
    manifest = synthetic_manifest({"easy": 4}, split="validation", storage=LocalStorage(tmp_path))
    assert cs.Manifest.load(tmp_path, split="validation").fingerprint == manifest.fingerprint


def test_the_kit_needs_numpy_alone() -> None:
    absent = ["torch", "boto3", "xxhash", "PIL", "safetensors", "pytest"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from curriculum_sampler.testing import MemoryStorage, check_storage, synthetic_manifest\n"
        "check_storage(MemoryStorage)\nsynthetic_manifest({'easy': 1})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert re.search(r'MissingExtraError: .*pip install "curriculum-sampler\[data\]"\n$', said)
