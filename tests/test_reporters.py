"""Reports: what rows say is what the plan says and the loop did; files read back; W&B never stops a training."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import curriculum_sampler as cs
from curriculum_sampler.integrations import wandb as wandb_module
from curriculum_sampler.integrations.tensorboard import TensorBoardReporter
from curriculum_sampler.integrations.wandb import WandbReporter

from .two_ranks import on_two_ranks

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=3, lr=0.1),
        cs.Stage("hard", {"easy": 1, "hard": 2}, steps=5, lr=0.01, ramp=2),
    ]
)


class Rows(list):
    """A reporter that is a list of its rows."""

    opened_at: int | None = None
    is_closed = False

    def open(self, step):
        self.opened_at = step

    def log(self, row):
        self.append(row)

    def close(self):
        self.is_closed = True


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    buckets = {
        name: [{"__key__": f"{name}{n:02}", "cls": n} for n in range(20)]
        for name in ("easy", "hard", "unused")
    }
    return cs.CurriculumDataset(cs.write_shards(str(tmp_path_factory.mktemp("shards")), buckets))


def loader_of(dataset, **options):
    return cs.CurriculumLoader(dataset, SCHEDULE, **{"batch_size": 12, "seed": 17, **options})


def loss_of(bucket, index):
    return index + (100.0 if bucket == "hard" else 0.0)


def train(loader, *reporters, every=2, stop=None, gives_buckets=True):
    """A loop whose losses tell what they are of; returns the report, and (step, bucket, loss) of every sample."""
    report, trained = cs.TrainingReport(loader, reporters, every=every), []
    for batch in loader:
        buckets = batch["__bucket__"]
        losses = torch.tensor([loss_of(*one) for one in zip(buckets, batch["cls"].tolist(), strict=True)])
        trained += [(loader.step, *one) for one in zip(buckets, losses.tolist(), strict=True)]
        report.add(losses.requires_grad_(), buckets if gives_buckets else None, grad_norm=torch.tensor(0.5))
        if loader.steps_done == stop:
            break
    return report, trained


def train_rows(rows):
    return [row for row in rows if row["kind"] == "train"]


@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 3}, {"num_workers": 2}])
@pytest.mark.parametrize("gives_buckets", [True, False])
def test_rows_say_what_the_plan_says_and_the_loop_did(dataset, options, gives_buckets):
    rows, loader = Rows(), loader_of(dataset, **options)
    _, trained = train(loader, rows, gives_buckets=gives_buckets)
    assert rows.opened_at == 0
    told = train_rows(rows)
    assert [row["step"] for row in told] == [2, 3, 4, 6, 8]  # and at the end of each stage
    before = 0
    for row in told:
        positions = [loader.plan.at(step) for step in range(before, row["step"])]
        assert (row["stage"], row["lr"]) == (positions[-1].stage, positions[-1].lr)
        assert row["target_mixture"] == {
            name: pytest.approx(np.mean([position.mixture[name] for position in positions]))
            for name in positions[-1].mixture
        }
        since = [(bucket, loss) for step, bucket, loss in trained if before <= step < row["step"]]
        assert row["loss"] == pytest.approx(np.mean([loss for _, loss in since]))
        assert row["loss_by_bucket"] == {
            name: pytest.approx(np.mean([loss for bucket, loss in since if bucket == name]))
            for name in {bucket for bucket, _ in since}
        }
        counts = Counter(bucket for bucket, _ in since)
        assert row["observed_mixture"] == {
            name: pytest.approx(counts[name] / len(since)) for name in ("easy", "hard", "unused")
        }
        so_far = Counter(bucket for step, bucket, _ in trained if step < row["step"])
        assert row["samples_by_bucket"] == {name: so_far[name] for name in ("easy", "hard", "unused")}
        assert row["grad_norm"] == 0.5
        before = row["step"]


def test_a_row_opens_each_stage_at_a_switch_and_after_a_resume(dataset):
    rows, again = Rows(), Rows()
    loader, resumed = loader_of(dataset), loader_of(dataset)
    train(loader, rows, stop=5)
    resumed.load_state_dict(loader.state_dict())
    train(resumed, again)
    opened = [row for row in [*rows, *again] if row["kind"] == "stage"]
    assert [(row["step"], row["stage"], row["first_step"], row["end_step"]) for row in opened] == [
        (0, "easy", 0, 3),
        (3, "hard", 3, 8),
        (5, "hard", 3, 8),
    ]
    assert [row["target_mixture"] for row in opened] == [
        loader.plan.at(row["step"]).mixture for row in opened
    ]


@pytest.mark.parametrize("stop", range(1, 8))
def test_counts_go_on_after_a_resume(dataset, stop):
    whole, rows = Rows(), Rows()
    train(loader_of(dataset), whole)
    loader, resumed = loader_of(dataset), loader_of(dataset)
    train(loader, Rows(), stop=stop)
    resumed.load_state_dict(loader.state_dict())
    train(resumed, rows)
    assert rows.opened_at == stop
    counts = {row["step"]: row["samples_by_bucket"] for row in train_rows(whole)}
    assert all(row["samples_by_bucket"] == counts[row["step"]] for row in train_rows(rows))


def test_a_stage_that_is_cut_short_ends_with_a_row(dataset):
    rows, loader = Rows(), loader_of(dataset)
    report = cs.TrainingReport(loader, [rows], every=100)
    for _ in loader:
        if loader.step == 1:
            loader.advance("enough")
        report.add()
    assert [(row["step"], row["stage"]) for row in train_rows(rows)] == [(2, "easy"), (7, "hard")]
    assert all("loss" not in row for row in rows)


def test_a_loop_may_take_batches_ahead(dataset):
    rows, loader = Rows(), loader_of(dataset)
    report = cs.TrainingReport(loader, [rows], every=1)
    for _ in list(loader):
        report.add()
    assert [row["stage"] for row in train_rows(rows)] == ["easy"] * 3 + ["hard"] * 5
    assert [row["lr"] for row in train_rows(rows)] == [0.1] * 3 + [0.01] * 5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"losses": torch.tensor(1.0)}, r"losses: got shape \(\), but the batch has 12 samples"),
        ({"losses": np.ones((12, 3))}, r"losses: got shape \(12, 3\), but the batch has 12"),
        ({"losses": [1.0] * 11}, r"losses: got shape \(11,\)"),
        ({"buckets": ["easy"] * 11 + ["no"]}, "but the data has easy, hard, unused"),
    ],
)
def test_losses_and_buckets_are_one_for_each_sample(dataset, given, says):
    loader = loader_of(dataset)
    report = cs.TrainingReport(loader, [Rows()])
    next(iter(loader))
    with pytest.raises(cs.ArgumentError, match=says):
        report.add(**given)


def test_ranks_without_a_process_group_are_refused(dataset):
    with pytest.raises(cs.ArgumentError, match=r"one of 2 ranks, but torch\.distributed"):
        cs.TrainingReport(loader_of(dataset, rank=0, world_size=2), [Rows()])


def test_a_loss_that_is_no_number_is_none_and_no_error(dataset, tmp_path):
    rows, loader = Rows(), loader_of(dataset)
    file = cs.JsonlReporter(tmp_path / "metrics.jsonl")
    report = cs.TrainingReport(loader, [rows, file], every=1)
    next(iter(loader))
    report.add([math.nan] * 12, ["easy"] * 12, grad_norm=math.inf)
    (row,) = train_rows(rows)
    assert row["loss"] is row["loss_by_bucket"]["easy"] is row["grad_norm"] is None
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == row


def test_a_file_read_back_is_the_rows_without_those_of_a_killed_run(dataset, tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    rows = Rows()
    train(loader_of(dataset), rows)
    killed = loader_of(dataset)
    train(killed, cs.JsonlReporter(path), stop=6)
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    resumed = loader_of(dataset)
    resumed.load_state_dict(resumed.sampler.state_dict(step=4))
    report, _ = train(resumed, cs.JsonlReporter(path))
    report.close()
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert train_rows(told) == train_rows(rows)


def test_the_plot_of_a_running_job_reads_the_file(dataset, tmp_path):
    train(loader_of(dataset), cs.JsonlReporter(tmp_path / "metrics.jsonl"), stop=7)
    cs.plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_tensorboard_reads_one_series_also_after_a_resume(dataset, tmp_path):
    rows = Rows()
    train(loader_of(dataset), rows)
    report, _ = train(loader_of(dataset), TensorBoardReporter(tmp_path), stop=6)
    report.close()
    resumed = loader_of(dataset)
    resumed.load_state_dict(resumed.sampler.state_dict(step=4))
    report, _ = train(resumed, TensorBoardReporter(tmp_path))
    report.close()
    read = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    read.Reload()
    for name in ("loss", "lr", "target_mixture/hard", "observed_mixture/hard", "loss_by_bucket/easy"):
        outer, _, inner = name.partition("/")
        told = [
            (row["step"], row[outer][inner] if inner else row[outer])
            for row in train_rows(rows)
            if not inner or inner in row[outer]
        ]
        found = [(event.step, event.value) for event in read.Scalars(f"train/{name}")]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in told]
    texts = [event.tensor_proto.string_val[0] for event in read.Tensors("stage/text_summary")]
    assert texts[0] == b"easy"
    assert texts[-1] == b"hard"


@pytest.fixture
def without_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_without_a_key_a_run_is_written_offline(dataset, tmp_path, without_key):
    report, trained = train(loader_of(dataset), WandbReporter("digits", dir=str(tmp_path)))
    report.close()
    wandb.teardown()  # as at the end of a process: only then is all of it in the file
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for word in (b"global_step", b"train/loss_by_bucket/hard", b"train/target_mixture/easy", b"stage"):
        assert word in content
    assert len(trained) == 8 * 12


class NoNetwork:
    """Stands for the wandb module of a machine with a key and without a network."""

    def __init__(self, fails_offline):
        self.modes = []
        self.fails_offline = fails_offline

    def init(self, mode, **_):
        self.modes.append(mode)
        if mode == "online" or self.fails_offline:
            raise TimeoutError("no network")
        return self

    def define_metric(self, *_, **__): ...

    def log(self, values):
        raise OSError("disk full")

    def finish(self): ...


@pytest.mark.parametrize("fails_offline", [False, True])
def test_whatever_wandb_raises_the_training_goes_on(dataset, monkeypatch, caplog, fails_offline):
    broken = NoNetwork(fails_offline)
    monkeypatch.setattr(wandb_module, "wandb", broken)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    report, trained = train(loader_of(dataset), WandbReporter("digits"))
    report.close()
    assert len(trained) == 8 * 12
    assert broken.modes == ["online", "offline"]
    said = [record.getMessage() for record in caplog.records]
    assert [text.rpartition(": ")[2] for text in said] == [
        "no network",
        "no network" if fails_offline else "disk full",
    ]


RANKS = """
import json, sys
import torch.distributed as distributed
import curriculum_sampler as cs
from tests.test_reporters import Rows, loader_of, train

folder, out = sys.argv[1:]
distributed.init_process_group("gloo")
loader = loader_of(cs.CurriculumDataset(cs.Manifest.load(folder)), grad_accumulation=2)
rows = Rows()
train(loader, rows, gives_buckets=distributed.get_rank() == 0)
json.dump(rows, open(f"{out}/{distributed.get_rank()}.json", "w"))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_report_what_one_does(tmp_path):
    buckets = {
        name: [{"__key__": f"{name}{n:02}", "cls": n} for n in range(20)]
        for name in ("easy", "hard", "unused")
    }
    dataset = cs.CurriculumDataset(cs.write_shards(str(tmp_path / "shards"), buckets))
    first, second = on_two_ranks(RANKS, tmp_path, tmp_path / "shards")
    alone = Rows()
    train(loader_of(dataset), alone)
    assert second == []
    assert first == alone


def test_a_sampler_is_reported_as_a_loader_is():
    samples = torch.arange(40)
    bucket = ["easy"] * 20 + ["hard"] * 20

    def sampler():
        return cs.MixtureSampler.from_labels(SCHEDULE, bucket, batch_size=12, seed=17)

    def trained(own, batches):
        rows = Rows()
        report = cs.TrainingReport(own, [rows], every=2)
        for batch in batches:
            report.add(batch.double())
        return rows

    own = sampler()
    loader = torch.utils.data.DataLoader(samples, batch_sampler=own)
    whole = trained(own, loader)
    assert [row["step"] for row in whole if row["kind"] == "train"] == [2, 3, 4, 6, 8]
    assert whole[-1]["samples_by_bucket"] == dict(
        Counter(draw.bucket for step in range(8) for draw in own.draws(step))
    )

    resumed = sampler()
    resumed.load_state_dict(own.state_dict(step=4))
    rest = trained(resumed, torch.utils.data.DataLoader(samples, batch_sampler=resumed))
    assert [row for row in rest if row["kind"] == "train"] == [row for row in whole if row["step"] > 4]


def test_a_batch_that_was_not_delivered_is_not_counted(dataset):
    loader = loader_of(dataset)
    report = cs.TrainingReport(loader, [Rows()])
    for _ in loader:
        report.add()
        if loader.step == 3:
            with pytest.raises(
                cs.ArgumentError, match=r"batch of step 4, which was not delivered yet.*evaluation"
            ):
                report.add()
