"""Checkpoints: one file each, complete or absent, loadable without trusting it.

A file is written beside its final place, flushed to the disk and renamed, so whatever fails, the previous
``latest_checkpoint.pt`` stays as it was.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from curriculum_sampler.errors import ArgumentError, StateMismatchError, StorageError

FORMAT_VERSION = 1
LATEST = "latest_checkpoint.pt"


def step_name(epoch: int, step: int) -> str:
    """Name of a checkpoint within a stage.

    >>> step_name(3, 1500)
    'checkpoint_epoch_3_step_1500.pt'
    """
    return f"checkpoint_epoch_{epoch}_step_{step}.pt"


def stage_name(index: int, stage: str, step: int) -> str:
    """Name of the checkpoint that a finished stage leaves; ``index`` counts from 0. It is never rotated away.

    >>> stage_name(0, "easy", 10_000)
    'checkpoint_stage1-easy_step_10000.pt'
    """
    return f"checkpoint_stage{index + 1}-{stage}_step_{step}.pt"


def save_checkpoint(folder: Path, name: str, content: Mapping[str, Any], *, limit: int | None = None) -> Path:
    """Write ``folder/name`` and make ``latest_checkpoint.pt`` the same file.

    Args:
        folder: The run's output folder.
        name: File name.
        content: Tensors and plain Python types only; the format version is added.
        limit: How many of the checkpoints within stages to keep, newest first; None keeps all. Finals of stages
            are kept whatever the limit.

    Raises:
        StorageError: The disk is full or the folder not writable. The previous latest is intact.
    """
    path = folder / name
    try:
        with _published(path) as partial, partial.open("wb") as file:
            torch.save({"format_version": FORMAT_VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        with _published(folder / LATEST) as partial:
            _same_file(path, partial)
        _flush_folder(folder)
    # torch wraps what the file raises in a RuntimeError of its own
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"Could not save {path}: {error}. The checkpoint before it ({folder / LATEST}) is intact."
            " Free space or choose another --output_dir, then run the same command again."
        ) from error
    if limit is not None:
        _rotate(folder, keep=limit)
    return path


def keep_as(path: Path, name: str) -> None:
    """Give a checkpoint a further name in its folder, under which it is never rotated away."""
    with _published(path.with_name(name)) as partial:
        _same_file(path, partial)
    _flush_folder(path.parent)


def plain(values: Any) -> Any:
    """Return a configuration as plain Python types, which is all that a checkpoint may hold.

    >>> plain({"folder": Path("a"), "size": (1, 2)})
    {'folder': 'a', 'size': [1, 2]}
    """
    if isinstance(values, Mapping):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return values if isinstance(values, str | int | float | bool | None) else str(values)


def find_checkpoint(wanted: str | None, folder: Path) -> Path | None:
    """Resolve ``--resume_from_checkpoint``: a path, ``latest`` in the output folder, or None for a fresh start.

    Returns:
        None where there is nothing to resume: no wish, or ``latest`` in a folder without a checkpoint.

    Raises:
        ArgumentError: A path that does not exist, or ``latest`` lost from among other checkpoints. A hand-over between stages that went wrong must not start
            silently from nothing.
    """
    if wanted is None:
        return None
    if wanted == "latest":
        path = folder / LATEST
        others = sorted(folder.glob("checkpoint_*.pt"), key=lambda other: other.stat().st_mtime)
        if others and not path.exists():
            raise ArgumentError(
                f"{path} is missing, but {folder} holds checkpoints, and a fresh start would write over that training."
                f" Pass --resume_from_checkpoint {others[-1]} (the newest), or another --output_dir."
            )
        return path if path.exists() else None
    path = Path(wanted)
    if path.is_dir():
        path = path / LATEST
    if not path.is_file():
        found = ", ".join(sorted(entry.name for entry in folder.glob("*.pt"))) or "no checkpoints"
        raise ArgumentError(
            f"--resume_from_checkpoint {wanted}: there is no such file ({folder} holds {found})."
            " Correct the path, or say `latest` to start fresh where there is nothing yet."
        )
    return path


def read_any_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint of whichever trainer. Only tensors and plain types are accepted, so a file cannot run code.

    Args:
        path: The file.
        mmap: Leave the tensors in the file until they are used.

    Raises:
        StorageError: The file cannot be read as a checkpoint.
        StateMismatchError: It has a newer format.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        version, _ = content["format_version"], content["trainer"]
    except Exception as error:
        raise StorageError(
            f"{path} is no checkpoint of ours, or is damaged ({type(error).__name__}: {error}). Use another file of its folder."
        ) from error
    if version > FORMAT_VERSION:
        raise StateMismatchError(
            f"{path} has format {version}, this code reads up to {FORMAT_VERSION}. Update the code."
        )
    return content


def read_checkpoint(path: Path, trainer: str) -> dict[str, Any]:
    """Read a checkpoint of one trainer; see `read_any_checkpoint`.

    Raises:
        StateMismatchError: It belongs to another trainer.
    """
    content = read_any_checkpoint(path)
    made_by = content["trainer"]
    if made_by != trainer:
        raise StateMismatchError(
            f"{path} is a checkpoint of the {made_by} trainer, this is {trainer}."
            f" Give --output_dir and --resume_from_checkpoint of a {trainer} run."
        )
    return content


def first_misfit(saved: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]) -> str | None:
    """Say in which tensor two models differ first, by name or shape; None if in none.

    >>> first_misfit({"w": torch.zeros(2)}, {"w": torch.zeros(3), "x": torch.zeros(1)})
    'w is (2,) there and (3,) here'
    """
    theirs = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    here = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    differing = sorted(n for n in theirs.keys() | here.keys() if theirs.get(n) != here.get(n))
    if not differing:
        return None
    name = differing[0]
    return f"{name} is {theirs.get(name, 'absent')} there and {here.get(name, 'absent')} here"


@contextmanager
def _published(path: Path) -> Iterator[Path]:
    """Yield a neighbouring name to write to; on success it takes the place of ``path``, else it is removed."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # left by a run that was killed while writing
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _same_file(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system has no hard links. Never a symbolic link:
    object stores and archives do not keep those."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rotate(folder: Path, keep: int) -> None:
    pattern = re.compile(r"checkpoint_epoch_\d+_step_(\d+)\.pt")
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    for _, path in sorted(found)[: max(0, len(found) - keep)]:
        path.unlink()
