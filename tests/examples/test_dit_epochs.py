"""Laws of DiT's epochs: an epoch is a declared number of draws, and `--num_epochs` counts those of the whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

import curriculum_sampler as cs

from .trainer_runs import Runs, assert_same_training, curriculum, latest, rows

pytestmark = pytest.mark.parametrize("trainer", ["dit"], indirect=True, scope="session")

# Two epochs of ten draws are five steps of four; one epoch is two and a half, so three.
STAGES = [("easy", 2, 2e-3), ("medium", 1, 1e-3), ("hard", 1, 5e-4)]
ENDS = [5, 8, 11]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What makes a run count in epochs."""
    path = tmp_path_factory.mktemp("epochs") / "curriculum.toml"
    path.write_text(curriculum(STAGES, "epochs"))
    return "--curriculum_config", str(path), "--samples_per_epoch", "10"


def test_one_process_and_stage_by_stage_give_the_same_training_bit_for_bit(
    runs: Runs, flags: tuple[str, ...], tmp_path: Path
) -> None:
    whole, staged = tmp_path / "whole", tmp_path / "staged"
    assert runs(whole, *flags) == 0
    epochs = 0
    for name, length, rate in STAGES:
        epochs += length
        given = ("--difficulty", name, "--num_epochs", epochs, "--learning_rate", rate)
        assert runs(staged, *flags, *given, "--resume_from_checkpoint", "latest") == 0
        done = latest(staged)["global_step"]
        for again in (
            given,
            (*given, "--num_epochs", 1),
        ):  # a finished stage is no work, nor is less than that
            assert runs(staged, *flags, *again, "--resume_from_checkpoint", "latest") == 0
            assert latest(staged)["global_step"] == done
    assert_same_training(whole, staged)
    assert rows(whole, "validation") == rows(staged, "validation")
    for folder in (whole, staged):
        assert [(row["first_step"], row["end_step"]) for row in rows(folder, "stage")] == list(
            zip([0, *ENDS], ENDS, strict=False)
        )
        for number, ((name, _, _), end) in enumerate(zip(STAGES, ENDS, strict=True), start=1):
            assert (folder / f"checkpoint_stage{number}-{name}_step_{end}.pt").exists()


def test_a_power_cut_changes_nothing_in_the_end(runs: Runs, flags: tuple[str, ...], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert runs(whole, *flags) == 0
    runs.cut_off(cut, 7, *flags)
    assert runs(cut, *flags, "--resume_from_checkpoint", "latest") == 0
    assert_same_training(whole, cut)


def test_another_epoch_size_is_refused_at_a_resume(
    runs: Runs, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert runs(tmp_path, *flags, "--max_steps_this_run", 6) == 0
    other = (*flags[:-1], "14", "--resume_from_checkpoint", "latest")
    with pytest.raises(cs.StateMismatchError, match="Sample order would differ"):
        runs(tmp_path, *other)


def test_epochs_behind_a_stage_that_was_cut_in_steps_are_refused(
    runs: Runs, flags: tuple[str, ...], tmp_path: Path
) -> None:
    easy = ("--difficulty", "easy", "--num_epochs", 2, "--max_steps_this_run", 2)
    assert runs(tmp_path, *flags, *easy) == 0
    medium = ("--difficulty", "medium", "--resume_from_checkpoint", "latest")
    assert runs(tmp_path, *flags, *medium, "--max_train_steps", 4) == 0
    hard = ("--difficulty", "hard", "--resume_from_checkpoint", "latest", "--num_epochs", 4)
    with pytest.raises(cs.ArgumentError, match=r"was trained for 2 steps. Say --max_train_steps instead"):
        runs(tmp_path, *flags, *hard)
