"""Laws of checkpoint files: complete or absent, found or refused, never dangerous to read."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from common.checkpoint import LATEST, find_checkpoint, read_checkpoint, save_checkpoint, stage_name, step_name

import curriculum_sampler as cs


def content(step: int, size: int = 10) -> dict[str, Any]:
    return {"trainer": "painter", "global_step": step, "model": {"weight": torch.full((size,), float(step))}}


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond ``size`` bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, step_name(0, 3), content(3))
    read = read_checkpoint(path, "painter")
    assert read["global_step"] == 3
    assert torch.equal(read["model"]["weight"], torch.full((10,), 3.0))


def test_latest_is_a_real_file_with_the_bytes_of_the_newest(tmp_path: Path) -> None:
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step_name(0, step), content(step))
    latest = tmp_path / LATEST
    assert not latest.is_symlink()
    assert latest.read_bytes() == path.read_bytes()
    assert read_checkpoint(latest, "painter")["global_step"] == 2


def test_latest_is_a_copy_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    path = save_checkpoint(tmp_path, step_name(0, 1), content(1))
    assert (tmp_path / LATEST).read_bytes() == path.read_bytes()


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_debris(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, step_name(0, 1), content(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_no_larger_than(20_000), pytest.raises(cs.StorageError, match=r"step_2.*is intact.*Free space"):
        save_checkpoint(tmp_path, step_name(0, 2), content(2, size=100_000))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_whoever_reads_the_latest_while_it_is_replaced_reads_one_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, step_name(0, 1), content(1))
    whole = (tmp_path / LATEST).read_bytes()
    with (tmp_path / LATEST).open("rb", buffering=0) as reader:
        begun = reader.read(100)
        save_checkpoint(tmp_path, step_name(0, 2), content(2))
        assert begun + reader.read() == whole
    assert (tmp_path / step_name(0, 1)).read_bytes() == whole


def test_debris_of_a_killed_run_is_written_over(tmp_path: Path) -> None:
    (tmp_path / (step_name(0, 1) + ".partial")).write_bytes(b"half of a file")
    save_checkpoint(tmp_path, step_name(0, 1), content(1))
    assert {path.name for path in tmp_path.iterdir()} == {step_name(0, 1), LATEST}


def test_rotation_keeps_the_newest_and_every_final_of_a_stage(tmp_path: Path) -> None:
    for step in (2, 9, 10):
        save_checkpoint(tmp_path, step_name(step // 5, step), content(step), limit=2)
    save_checkpoint(tmp_path, stage_name(0, "easy", 11), content(11), limit=2)
    save_checkpoint(tmp_path, step_name(2, 100), content(100), limit=2)
    kept = {path.name for path in tmp_path.iterdir()} - {LATEST}
    assert kept == {step_name(2, 10), step_name(2, 100), stage_name(0, "easy", 11)}


def test_latest_outlives_the_rotation_of_its_own_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, step_name(0, 5), content(5))
    save_checkpoint(tmp_path, step_name(0, 4), content(4), limit=1)
    assert read_checkpoint(tmp_path / LATEST, "painter")["global_step"] == 4


def test_nothing_to_resume_is_none_and_a_wrong_path_an_error(tmp_path: Path) -> None:
    assert find_checkpoint(None, tmp_path) is None
    assert find_checkpoint("latest", tmp_path) is None
    with pytest.raises(cs.ArgumentError, match=r"elsewhere\.pt: there is no such file .*no checkpoints"):
        find_checkpoint(str(tmp_path / "elsewhere.pt"), tmp_path)
    save_checkpoint(tmp_path, step_name(0, 1), content(1))
    assert find_checkpoint("latest", tmp_path) == tmp_path / LATEST
    assert find_checkpoint(str(tmp_path), tmp_path / "other") == tmp_path / LATEST


def test_a_checkpoint_of_another_trainer_or_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, step_name(0, 1), content(1))
    with pytest.raises(cs.StateMismatchError, match="checkpoint of the painter trainer, this is sculptor"):
        read_checkpoint(path, "sculptor")
    newer = {"format_version": 99, **content(1)}
    torch.save(newer, path)
    with pytest.raises(cs.StateMismatchError, match=r"format 99.*Update the code"):
        read_checkpoint(path, "painter")


def test_damage_and_code_in_a_file_are_errors(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, step_name(0, 1), content(1))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(cs.StorageError, match="damaged"):
        read_checkpoint(path, "painter")

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"format_version": 1, "trainer": "painter", "trap": Trap()}, path)
    with pytest.raises(cs.StorageError, match="no checkpoint of ours"):
        read_checkpoint(path, "painter")
    assert not (tmp_path / "sprung").exists()
