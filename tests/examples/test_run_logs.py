"""Laws of what a run writes: rows that are never doubled, a log to read, W&B runs that never stop a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from common import wandb_runs
from common.logs import METRICS, RunLog, drop_rows_after
from common.wandb_runs import WandbRuns, wandb_is_wanted

ROWS = [
    ("stage", 0),
    ("train", 2),
    ("checkpoint", 2),
    ("train", 4),
    ("validation", 4),
    ("checkpoint", 4),
    ("stage", 4),
    ("train", 5),
]


def written(folder: Path, rows: list[tuple[str, int]] = ROWS) -> Path:
    path = folder / METRICS
    path.write_text("".join(json.dumps({"kind": kind, "step": step}) + "\n" for kind, step in rows))
    return path


def kept(path: Path) -> list[tuple[str, int]]:
    return [(row["kind"], row["step"]) for row in map(json.loads, path.read_text().splitlines())]


@pytest.mark.parametrize(("step", "count"), [(0, 0), (2, 3), (4, 6), (9, 8)])
def test_rows_behind_the_checkpoint_that_is_resumed_are_dropped(
    tmp_path: Path, step: int, count: int
) -> None:
    path = written(tmp_path)
    drop_rows_after(path, step)
    assert kept(path) == ROWS[:count]


def test_a_checkpoint_without_its_row_keeps_the_rows_up_to_its_step(tmp_path: Path) -> None:
    path = written(tmp_path, [("train", 2), ("train", 4), ("train", 5)])
    drop_rows_after(path, 4)
    assert kept(path) == [("train", 2), ("train", 4)]


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text() + '{"kind": "tra')
    drop_rows_after(path, 9)
    assert kept(path) == ROWS


def test_silent_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path / "run", 0, 5, is_writer=False)
    log.say("hello")
    log.row("train", 1, "easy", loss=1.0)
    log.close()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_the_log_is_appended_to_by_the_next_process(tmp_path: Path) -> None:
    for word in ("first", "second"):
        log = RunLog(tmp_path, 0, 5, is_writer=True)
        log.say(word)
        log.close()
    assert [line.split()[-1] for line in (tmp_path / "training.log").read_text().splitlines()] == [
        "first",
        "second",
    ]


class Recorder:
    """Stands for the wandb module where opening online runs must not touch a network."""

    @staticmethod
    def Settings(**values: Any) -> dict[str, Any]:  # noqa: N802
        return values

    def __init__(self, *, fails_online: bool = False) -> None:
        self.opened: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.finished = 0
        self._fails_online = fails_online

    def init(self, **values: Any) -> Any:
        self.opened.append(values)
        if self._fails_online and values["mode"] == "online":
            raise TimeoutError("no network")
        recorder = self

        class Run:
            id, url, dir = values["id"], "https://wandb.example/run", "folder"

            def define_metric(self, *_: Any, **__: Any) -> None: ...

            def log(self, values: dict[str, Any]) -> None:
                recorder.logged.append(values)

            def finish(self) -> None:
                recorder.finished += 1

        return Run()


def opened(
    folder: Path, patch: pytest.MonkeyPatch, recorder: Recorder, ids: dict[str, str]
) -> tuple[WandbRuns, list[str]]:
    said: list[str] = []
    patch.setattr(wandb_runs, "wandb", recorder)
    return WandbRuns(folder, "catvton-curriculum", "folder", ids, said.append), said


def test_a_stage_closes_the_run_before_it_and_a_known_one_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recorder = Recorder()
    runs, _ = opened(tmp_path, monkeypatch, recorder, {"easy": "known"})
    runs.open(0, "easy", "catvton-curriculum-stage1-easy", {})
    runs.open(0, "medium", "catvton-curriculum-stage2-medium", {})
    runs.log(7, {"loss": 1.0})
    runs.close()
    names = [(run["name"], run["resume"], run["group"], run["job_type"]) for run in recorder.opened]
    assert names == [
        ("catvton-curriculum-stage1-easy", "allow", "folder", "stage"),
        ("catvton-curriculum-stage2-medium", "allow", "folder", "stage"),
    ]
    first, second = (run["id"] for run in recorder.opened)
    assert first == "known" != second
    assert recorder.finished == 2
    assert recorder.logged == [{"global_step": 7, "loss": 1.0}]
    assert runs.ids == {"easy": first, "medium": second}


def test_without_a_network_the_run_goes_on_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recorder = Recorder(fails_online=True)
    runs, said = opened(tmp_path, monkeypatch, recorder, {})
    runs.open(0, "easy", "name", {})
    runs.log(1, {"loss": 1.0})
    assert [run["mode"] for run in recorder.opened] == ["online", "offline"]
    assert recorder.logged
    assert "no network" in said[0]
    assert "name, offline" in said[1]


def test_without_a_key_a_run_is_written_offline_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    said: list[str] = []
    runs = WandbRuns(tmp_path, "catvton-curriculum", "folder", {}, said.append)
    runs.open(0, "easy", "catvton-curriculum-stage1-easy", {"seed": 1})
    runs.log(1, {"train/loss": 1.0})
    runs.close()
    assert len(said) == 1
    assert said[0].startswith("W&B: catvton-curriculum-stage1-easy, offline, in ")
    assert list((tmp_path / "wandb").glob(f"offline-run-*/run-{runs.ids['easy']}.wandb"))


def test_wandb_is_left_alone_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not wandb_is_wanted("auto")
    assert not wandb_is_wanted("jsonl")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_is_wanted("auto")
