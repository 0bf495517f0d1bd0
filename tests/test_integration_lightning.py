"""Lightning trains the plan: its batches, its rates, its length, and goes on exactly from Lightning's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, ModelCheckpoint

import curriculum_sampler as cs
from curriculum_sampler.integrations.lightning import CurriculumDataModule

from .two_ranks import on_two_ranks

# Lightning's advice to people, about tiny trainings on small machines.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:Warning"),
]

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=3, lr=0.1),
        cs.Stage("hard", {"easy": 1, "hard": 2}, steps=4, lr=0.01, ramp=2),
    ]
)
WITHOUT_RATES = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 1}, steps=4)])


class Linear(pl.LightningModule):
    """A linear model that remembers what it was trained on, and at which rate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)
        self.seen: list[list[str]] = []
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(list(batch["__key__"]))
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.layer(batch["npy"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    def samples(bucket):
        return [{"__key__": f"{bucket}{n:02}", "npy": np.full(4, n / 20, np.float32)} for n in range(20)]

    folder = str(tmp_path_factory.mktemp("shards"))
    cs.write_shards(folder, {name: samples(name) for name in ("easy", "hard")})
    return folder


@pytest.fixture(scope="module")
def dataset(shards):
    return cs.CurriculumDataset(cs.Manifest.load(shards))


def module(dataset, schedule=SCHEDULE, **options):
    return CurriculumDataModule(dataset, schedule, **{"batch_size": 12, "seed": 17, **options})


def trainer(tmp_path, **options):
    quiet = dict.fromkeys(["logger", "enable_progress_bar", "enable_model_summary"], False)
    common = {"max_epochs": -1, "accelerator": "cpu", "default_root_dir": tmp_path, **quiet}
    if not any(isinstance(one, ModelCheckpoint) for one in options.get("callbacks", [])):
        common["enable_checkpointing"] = False
    return pl.Trainer(**{**common, **options})


def every_batch(tmp_path, n=1):
    return ModelCheckpoint(tmp_path / "checkpoints", filename="{step}", save_top_k=-1, every_n_train_steps=n)


def bare_loop(dataset, schedule=SCHEDULE, **options):
    loader = cs.CurriculumLoader(dataset, schedule, **{"batch_size": 12, "seed": 17, **options})
    return [(batch["__key__"], loader.lr) for batch in loader]


def test_a_fit_is_the_plan(tmp_path, dataset):
    model, running = Linear(), trainer(tmp_path)
    running.fit(model, datamodule=module(dataset, num_workers=2))
    assert list(zip(model.seen, model.rates, strict=True)) == bare_loop(dataset)
    assert running.global_step == 7


def test_a_single_epoch_is_the_plan_too(tmp_path, dataset):
    model, running = Linear(), trainer(tmp_path, max_epochs=1)
    running.fit(model, datamodule=module(dataset))
    assert running.global_step == running.estimated_stepping_batches == 7


@pytest.mark.parametrize("epochs", [{}, {"max_epochs": 1}, {"limit_train_batches": 2}])
def test_resuming_from_any_checkpoint_trains_what_was_left(tmp_path, dataset, epochs):
    whole = Linear()
    trainer(tmp_path, callbacks=[every_batch(tmp_path)], **epochs).fit(whole, datamodule=module(dataset))
    saved = sorted((tmp_path / "checkpoints").glob("step=*.ckpt"))
    assert len(saved) == 7
    for path in saved:
        step = int(path.stem.removeprefix("step="))
        model = Linear()
        running = trainer(tmp_path, callbacks=[every_batch(tmp_path)], **epochs)
        running.fit(model, datamodule=module(dataset, num_workers=2), ckpt_path=path)
        assert model.seen == whole.seen[step:]
        assert model.rates == whole.rates[step:]
        assert torch.equal(model.layer.weight, whole.layer.weight)
        assert running.global_step == 7


class Stop(Callback):
    """Ends the process, as it were, while batch ``number`` is in training."""

    def __init__(self, number):
        self.number = number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.number:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "stopped.ckpt")
            raise RuntimeError("stopped")


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 6])
def test_a_batch_that_was_delivered_but_not_trained_comes_again(tmp_path, dataset, number):
    whole, first, then = Linear(), Linear(), Linear()
    options = {"accumulate_grad_batches": 2}
    trainer(tmp_path, **options).fit(whole, datamodule=module(dataset))
    with pytest.raises(RuntimeError, match="stopped"):
        trainer(tmp_path, callbacks=[Stop(number)], **options).fit(first, datamodule=module(dataset))
    running = trainer(tmp_path, **options)
    running.fit(then, datamodule=module(dataset), ckpt_path=tmp_path / "stopped.ckpt")
    # An accumulation that was interrupted is done anew: its gradients were lost.
    trained = number // 2 * 2
    assert first.seen[:trained] + then.seen == whole.seen
    assert torch.equal(then.layer.weight, whole.layer.weight)
    assert running.global_step == 7


def test_another_accumulation_goes_on_with_the_same_global_batches(tmp_path, dataset):
    first, then = Linear(), Linear()
    with pytest.raises(RuntimeError, match="stopped"):
        trainer(tmp_path, callbacks=[Stop(5)], accumulate_grad_batches=2).fit(
            first, datamodule=module(dataset)
        )
    running = trainer(tmp_path, accumulate_grad_batches=3)
    running.fit(then, datamodule=module(dataset), ckpt_path=tmp_path / "stopped.ckpt")
    assert then.seen == [keys for keys, _ in bare_loop(dataset, grad_accumulation=3)][2 * 3 :]
    assert running.global_step == 7


@pytest.mark.parametrize("epochs", [{"limit_train_batches": 2}, {"max_steps": 4}])
def test_a_checkpoint_of_an_epoch_that_ended_goes_on_too(tmp_path, dataset, epochs):
    first, then = Linear(), Linear()
    running = trainer(tmp_path, **{"max_epochs": 2, **epochs})
    running.fit(first, datamodule=module(dataset))
    running.save_checkpoint(tmp_path / "ended.ckpt")
    trainer(tmp_path).fit(then, datamodule=module(dataset), ckpt_path=tmp_path / "ended.ckpt")
    assert len(first.seen) == 4
    assert first.seen + then.seen == [keys for keys, _ in bare_loop(dataset)]


def test_a_second_fit_of_the_same_trainer_goes_on(tmp_path, dataset):
    model, data, running = Linear(), module(dataset), trainer(tmp_path, max_steps=3)
    running.fit(model, datamodule=data)
    running.fit_loop.epoch_loop.max_steps = 6
    running.fit(model, datamodule=data)
    assert list(zip(model.seen, model.rates, strict=True)) == bare_loop(dataset)[:6]


def test_a_plan_that_is_cut_short_ends_the_training(tmp_path, dataset):
    class Advance(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 4:
                trainer.datamodule.loader.advance("enough")

    model, running = Linear(), trainer(tmp_path, callbacks=[Advance()], max_epochs=3)
    running.fit(model, datamodule=module(dataset))
    assert len(model.seen) == running.global_step == 5
    assert running.current_epoch == 1


def test_stage_mixture_and_rate_are_logged(tmp_path, dataset):
    logger = pl.loggers.CSVLogger(tmp_path)
    running = trainer(tmp_path, logger=logger, log_every_n_steps=1)
    running.fit(Linear(), datamodule=module(dataset))
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    table = [dict(zip(names, row.split(","), strict=True)) for row in rows[1:]]
    plan = running.datamodule.loader.plan
    assert len(table) == 7
    for step, row in enumerate(table):
        position = plan.at(step)
        assert int(float(row["curriculum/stage"])) == position.stage_index
        assert float(row["curriculum/lr"]) == pytest.approx(position.lr)
        for name, share in position.mixture.items():
            assert float(row[f"curriculum/mixture/{name}"]) == pytest.approx(share)


class TwoGroups(Linear):
    def configure_optimizers(self):
        groups = [{"params": [self.layer.weight], "lr": 1.0}, {"params": [self.layer.bias], "lr": 0.1}]
        return torch.optim.SGD(groups)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.rates[-1] = [group["lr"] for group in self.optimizers().param_groups]
        return loss


def test_parameter_groups_keep_their_proportions_also_after_a_resume(tmp_path, dataset):
    whole, then = TwoGroups(), TwoGroups()
    trainer(tmp_path, callbacks=[every_batch(tmp_path)]).fit(whole, datamodule=module(dataset))
    assert whole.rates == [pytest.approx([lr, lr / 10]) for _, lr in bare_loop(dataset)]
    path = tmp_path / "checkpoints" / "step=2.ckpt"
    trainer(tmp_path, callbacks=[every_batch(tmp_path)]).fit(then, datamodule=module(dataset), ckpt_path=path)
    assert then.rates == whole.rates[2:]


class Validated(Linear):
    def validation_step(self, batch, batch_idx):
        self.log("loss", self.layer(batch["npy"]).square().mean(), batch_size=4)


class WithValidation(CurriculumDataModule):
    def val_dataloader(self):
        samples = [{"__key__": "x", "npy": torch.ones(4)}] * 4
        return torch.utils.data.DataLoader(samples, batch_size=4)


def test_checkpoints_of_validations_within_an_accumulation_go_on(tmp_path, dataset):
    def fit(model, path=None):
        keep = ModelCheckpoint(tmp_path / "checkpoints", filename="{step}-{epoch}", save_top_k=-1)
        every = {"val_check_interval": 3, "check_val_every_n_epoch": None, "accumulate_grad_batches": 2}
        data = WithValidation(dataset, SCHEDULE, batch_size=12, seed=17)
        trainer(tmp_path, callbacks=[keep], num_sanity_val_steps=0, **every).fit(model, data, ckpt_path=path)
        return model

    whole = fit(Validated())
    saved = sorted((tmp_path / "checkpoints").glob("step=*.ckpt"))
    assert len(saved) >= 3
    for path in saved:
        steps = torch.load(path, weights_only=True)["global_step"]
        model = fit(Validated(), path)
        assert model.seen == whole.seen[2 * steps :]
        assert torch.equal(model.layer.weight, whole.layer.weight)


class Reporting(Linear):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_start(self):
        reporters = [cs.JsonlReporter(self.path)]
        self.report = cs.TrainingReport(self.trainer.datamodule.loader, reporters, every=1)

    def training_step(self, batch, batch_idx):
        losses = self.layer(batch["npy"]).square().mean(dim=1)
        self.report.add(losses, batch["__bucket__"])
        return losses.mean()


def test_a_report_goes_on_where_a_checkpoint_was_taken(tmp_path, dataset):
    path = tmp_path / "metrics.jsonl"
    trainer(tmp_path, callbacks=[every_batch(tmp_path)]).fit(Reporting(path), datamodule=module(dataset))
    whole = path.read_text().splitlines()
    trainer(tmp_path, callbacks=[every_batch(tmp_path)]).fit(
        Reporting(path), datamodule=module(dataset), ckpt_path=tmp_path / "checkpoints" / "step=5.ckpt"
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [1, 2, 3, 4, 5, 6, 7]
    assert json.loads(whole[-1]) == trained[-1]


class Scheduled(Linear):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]


def test_rates_have_one_master(tmp_path, dataset):
    with pytest.raises(cs.ArgumentError, match="configure_optimizers returned a scheduler"):
        trainer(tmp_path).fit(Scheduled(), datamodule=module(dataset))
    model = Scheduled()
    trainer(tmp_path).fit(model, datamodule=module(dataset, WITHOUT_RATES))
    assert model.rates == [pytest.approx(1 / 3)] * 4


@pytest.mark.parametrize(
    ("of_trainer", "of_module"),
    [
        ({"accumulate_grad_batches": 2}, {"grad_accumulation": 3}),
        ({"callbacks": [GradientAccumulationScheduler({0: 2})]}, {}),
    ],
)
def test_accumulations_that_differ_are_refused(tmp_path, dataset, of_trainer, of_module):
    with pytest.raises(cs.ArgumentError, match="accumulate_grad_batches=2, but the global batch is divided"):
        trainer(tmp_path, **of_trainer).fit(Linear(), datamodule=module(dataset, **of_module))


def test_epochs_that_cut_an_accumulation_are_refused(tmp_path, dataset):
    with pytest.raises(cs.ArgumentError, match="epochs of 3 batches, but a step has 2"):
        trainer(tmp_path, limit_train_batches=3, accumulate_grad_batches=2).fit(
            Linear(), datamodule=module(dataset)
        )


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable:UserWarning")
def test_a_checkpoint_of_other_batches_is_refused(tmp_path, dataset):
    others = torch.utils.data.DataLoader([{"__key__": "x", "npy": torch.ones(4)}] * 8, batch_size=4)
    trainer(tmp_path, callbacks=[every_batch(tmp_path)], max_steps=1).fit(Linear(), others)
    path = tmp_path / "checkpoints" / "step=1.ckpt"
    running = trainer(tmp_path, callbacks=[every_batch(tmp_path)])
    with pytest.raises(cs.StateMismatchError, match="has no position in a curriculum"):
        running.fit(Linear(), datamodule=module(dataset), ckpt_path=path)


RANKS = """
import json, sys
import lightning.pytorch as pl
import torch
import curriculum_sampler as cs
from curriculum_sampler.integrations.lightning import CurriculumDataModule
from tests.test_integration_lightning import SCHEDULE, Linear

shards, out = sys.argv[1:]
dataset = cs.CurriculumDataset(cs.Manifest.load(shards))
options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "max_epochs": -1, "logger": False}
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

model, trainer = Linear(), pl.Trainer(max_steps=4, accumulate_grad_batches=2, **options, **quiet)
trainer.fit(model, datamodule=CurriculumDataModule(dataset, SCHEDULE, batch_size=12, seed=17, num_workers=1))
trainer.save_checkpoint(f"{out}/two_ranks.ckpt")

# The trap: a DataLoader over our sampler is replaced by Lightning unless told not to.
manifest = dataset.manifest
plan = SCHEDULE.plan(manifest.bucket_sizes, batch_size=12, run_sizes=manifest.run_sizes())
sampler = cs.MixtureSampler(plan, seed=17, rank=trainer.global_rank, world_size=2)
told = []
for replaces in (True, False):
    plain, batches = Linear(), torch.utils.data.DataLoader(dataset, batch_sampler=sampler)
    try:
        pl.Trainer(use_distributed_sampler=replaces, **options | {"max_epochs": 1}, **quiet).fit(plain, batches)
        told.append(plain.seen)
    except TypeError as error:
        told.append(str(error))
json.dump({"seen": model.seen, "plain": told}, open(f"{out}/{trainer.global_rank}.json", "w"))
"""


@pytest.mark.slow
def test_two_ranks_share_each_global_batch_and_one_goes_on_alone(tmp_path, shards, dataset):
    ranks = on_two_ranks(RANKS, tmp_path, shards)

    def together(parts):
        return [[*first, *second] for first, second in zip(*parts, strict=True)]

    assert together([rank["seen"] for rank in ranks]) == [
        keys for keys, _ in bare_loop(dataset, grad_accumulation=2)[:8]
    ]
    model = Linear()
    trainer(tmp_path).fit(model, datamodule=module(dataset), ckpt_path=tmp_path / "two_ranks.ckpt")
    assert model.seen == [keys for keys, _ in bare_loop(dataset)[4:]]

    replaced, kept = zip(*(rank["plain"] for rank in ranks), strict=True)
    assert all(isinstance(one, str) for one in replaced)  # refused, in Lightning's words
    assert together(kept) == [keys for keys, _ in bare_loop(dataset)]
