"""``CurriculumTrainer`` trains the plan: its batches on every rank, its rates, its length, its checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_jit_checkpoint import CheckpointManager

import curriculum_sampler as cs
from curriculum_sampler.integrations.transformers import CurriculumTrainer

from .two_ranks import on_two_ranks

pytestmark = [
    # Of the DataLoader for evaluation on a machine without an accelerator, and of torch's scheduler of the Trainer.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=3, lr=0.1),
        cs.Stage("hard", {"easy": 1, "hard": 2}, steps=4, lr=0.01, ramp=2),
    ]
)
WITHOUT_RATES = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 1}, steps=4)])


class Reporting(TrainerCallback):
    """Makes the report when the loader is where it goes on; the trainer's ``compute_loss`` adds to it."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.report = cs.TrainingReport(self.loader, [cs.JsonlReporter(self.path)], every=1)


class ReportingTrainer(CurriculumTrainer):
    def compute_loss(self, model, inputs, **kwargs):
        losses = model.layer(inputs["npy"]).square().mean(dim=1)
        self.reporting.report.add(losses)
        return losses.mean()


class Linear(torch.nn.Module):
    """A linear model that remembers what it was trained on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)
        self.seen = []

    def forward(self, npy, name):
        if self.training:
            self.seen.append(name.tolist())
        return {"loss": self.layer(npy).square().mean()}


class Rates(TrainerCallback):
    """Remembers the rate of each update, and may stop a training within one."""

    def __init__(self, stop=None):
        self.rates = []
        self.stop = stop

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        if state.global_step == self.stop:
            raise RuntimeError("stopped")


def named(sample):
    """What the model takes: a vector, and a number that says which sample it is."""
    return {
        "npy": sample["npy"],
        "name": sample["__index__"] + (100 if sample["__bucket__"] == "hard" else 0),
    }


def write_shards(folder):
    def samples(bucket):
        return [{"__key__": f"{bucket}{n:02}", "npy": np.full(4, n / 20, np.float32)} for n in range(20)]

    cs.write_shards(str(folder), {name: samples(name) for name in ("easy", "hard")})
    return dataset_of(folder)


def dataset_of(folder):
    return cs.CurriculumDataset(cs.Manifest.load(str(folder)), transform=named)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def loader_of(dataset, schedule=SCHEDULE, **options):
    return cs.CurriculumLoader(dataset, schedule, **{"batch_size": 12, "seed": 17, **options})


def arguments(folder, **options):
    common = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "optim": "sgd"}
    return TrainingArguments(str(folder), **{**common, "max_grad_norm": 0.0, "logging_steps": 1, **options})


def trainer_of(folder, loader, model=None, callback=None, **options):
    options.setdefault("gradient_accumulation_steps", loader.sampler.grad_accumulation)
    callbacks = [callback] if callback else []
    return CurriculumTrainer(
        model or Linear(), arguments(folder, **options), curriculum=loader, callbacks=callbacks
    )


def names(loader):
    return [batch["name"].tolist() for batch in loader]


@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2}, {"num_workers": 2}])
def test_a_training_is_the_plan(tmp_path, dataset, options):
    model, rates, loader = Linear(), Rates(), loader_of(dataset, **options)
    trainer = trainer_of(tmp_path, loader, model, rates)
    trainer.train()
    assert model.seen == names(loader_of(dataset, **options))
    assert rates.rates == [loader.plan.at(step).lr for step in range(7)]
    assert trainer.state.global_step == trainer.state.max_steps == 7


def test_stage_mixture_and_rate_are_logged(tmp_path, dataset):
    trainer = trainer_of(tmp_path, loader_of(dataset))
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 8))
    for row in rows:
        position = trainer.curriculum.plan.at(row["step"] - 1)
        assert row["stage"] == position.stage_index
        assert row["learning_rate"] == position.lr
        assert {name: row[f"mixture/{name}"] for name in position.mixture} == position.mixture


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resuming_from_any_checkpoint_trains_what_was_left(tmp_path, dataset, accumulation):
    options = {"grad_accumulation": accumulation}
    whole, rates = Linear(), Rates()
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer_of(tmp_path, loader_of(dataset, **options), whole, rates, **saving).train()
    for step in (1, 3, 4, 7):
        model, later = Linear(), Rates()
        loader = loader_of(dataset, num_workers=2, **options)
        trainer = trainer_of(tmp_path / "again", loader, model, later)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert model.seen == whole.seen[step * accumulation :]
        assert later.rates == rates.rates[step:]
        assert torch.equal(model.layer.weight, whole.layer.weight)
        assert trainer.state.global_step == 7
        assert trainer.state.epoch == 1


def test_true_resumes_from_the_last_checkpoint(tmp_path, dataset):
    first, then = Linear(), Linear()
    trainer_of(tmp_path, loader_of(dataset), first, save_strategy="steps", save_steps=2, max_steps=5).train()
    trainer_of(tmp_path, loader_of(dataset), then).train(resume_from_checkpoint=True)
    # The Trainer saves at the end too.
    assert first.seen + then.seen == names(loader_of(dataset))
    assert len(first.seen) == 5
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        trainer_of(tmp_path / "none", loader_of(dataset)).train(resume_from_checkpoint=True)


def test_a_checkpoint_within_a_step_does_not_skip_it(tmp_path, dataset):
    """As the Trainer's own handler of SIGTERM takes one: after the gradients, before the update."""
    trainer = trainer_of(tmp_path, loader_of(dataset), first := Linear())

    class Terminated(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 3:
                CheckpointManager(trainer).execute_jit_checkpoint()
                control.should_training_stop = True
                raise RuntimeError("stopped")

    trainer.add_callback(Terminated())
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.train()
    then = Linear()
    trainer_of(tmp_path, loader_of(dataset), then).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-3")
    )
    assert first.seen[:3] + then.seen == names(loader_of(dataset))


def test_a_report_says_what_was_drawn_though_batches_are_taken_ahead(tmp_path, dataset):
    reporting = Reporting()
    reporting.loader, reporting.path = loader_of(dataset, grad_accumulation=2), tmp_path / "metrics.jsonl"
    options = arguments(tmp_path, gradient_accumulation_steps=2)
    trainer = ReportingTrainer(Linear(), options, curriculum=reporting.loader, callbacks=[reporting])
    trainer.reporting = reporting
    trainer.train()
    rows = [json.loads(line) for line in reporting.path.read_text().splitlines()]
    trained = [row for row in rows if row["kind"] == "train"]
    drawn = [reporting.loader.sampler.draws(step).counts() for step in range(7)]
    assert [
        {name: share * 12 for name, share in row["observed_mixture"].items() if share} for row in trained
    ] == [pytest.approx(counts) for counts in drawn]


def test_a_plan_that_is_cut_short_ends_the_training(tmp_path, dataset):
    class Advance(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                loader.advance("enough")

    model, loader = Linear(), loader_of(dataset)
    trainer = trainer_of(tmp_path, loader, model, Advance())
    trainer.train()
    assert len(model.seen) == trainer.state.global_step == 5


def test_without_rates_the_trainers_own_scheduler_is_at_work(tmp_path, dataset):
    rates = Rates()
    loader = loader_of(dataset, WITHOUT_RATES)
    options = {"learning_rate": 1.0, "lr_scheduler_type": "linear"}
    trainer_of(tmp_path, loader, callback=rates, **options).train()
    assert rates.rates == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2, but the loader divides"),
        ({"max_steps": 8}, "max_steps=8, but the plan ends at step 7"),
        (
            {"lr_scheduler_type": "cosine"},
            "^lr_scheduler_type='cosine', but the stages have learning rates. Leave it",
        ),
        ({"warmup_steps": 2}, "^warmup_steps=2, but the stages have learning rates"),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 2}, "='cosine' and warmup_steps=2, .* Leave both"),
        ({"auto_find_batch_size": True}, "the batch size is the plan's"),
    ],
)
def test_arguments_that_disagree_with_the_loader_are_refused(tmp_path, dataset, options, says):
    with pytest.raises(cs.ArgumentError, match=says):
        trainer_of(tmp_path, loader_of(dataset), **options)


def test_a_scheduler_beside_rates_is_refused(tmp_path, dataset):
    model = Linear()
    optimizer = torch.optim.SGD(model.parameters())
    both = (optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    with pytest.raises(cs.ArgumentError, match="optimizers: got a scheduler"):
        CurriculumTrainer(model, arguments(tmp_path), curriculum=loader_of(dataset), optimizers=both)


def test_a_loader_of_other_ranks_is_refused(tmp_path, dataset):
    with pytest.raises(cs.ArgumentError, match="rank 1 of 2, this process is 0 of 1"):
        trainer_of(tmp_path, loader_of(dataset, rank=1, world_size=2))


def test_a_second_training_with_a_used_loader_is_refused(tmp_path, dataset):
    trainer = trainer_of(tmp_path, loader_of(dataset))
    trainer.train()
    with pytest.raises(cs.StateMismatchError, match="The loader is at step 7, the Trainer at 0"):
        trainer.train()


def test_a_checkpoint_without_our_state_is_refused(tmp_path, dataset):
    trainer_of(tmp_path, loader_of(dataset), save_strategy="steps", save_steps=5).train()
    checkpoint = tmp_path / "checkpoint-5"
    (checkpoint / "curriculum.json").unlink()
    with pytest.raises(cs.StateMismatchError, match=r"has no curriculum\.json"):
        trainer_of(tmp_path, loader_of(dataset)).train(resume_from_checkpoint=str(checkpoint))


RANKS = """
import json, sys
from tests.test_integration_transformers import Linear, Rates, dataset_of, loader_of, arguments
from curriculum_sampler.integrations.transformers import CurriculumTrainer

shards, out = sys.argv[1:]
args = arguments(out, gradient_accumulation_steps=2, save_strategy="steps", save_steps=4, ddp_backend="gloo")
loader = loader_of(dataset_of(shards), grad_accumulation=2, num_workers=1)
model, rates = Linear(), Rates()
CurriculumTrainer(model, args, curriculum=loader, callbacks=[rates]).train()
json.dump({"seen": model.seen, "rates": rates.rates}, open(f"{out}/{args.process_index}.json", "w"))
"""


@pytest.mark.slow
def test_two_ranks_share_each_global_batch_and_one_goes_on_alone(tmp_path):
    dataset = write_shards(tmp_path / "shards")
    ranks = on_two_ranks(RANKS, tmp_path, tmp_path / "shards")
    together = [[*a, *b] for a, b in zip(*(rank["seen"] for rank in ranks), strict=True)]
    assert together == names(loader_of(dataset, grad_accumulation=2))
    plan = loader_of(dataset).plan
    assert ranks[0]["rates"] == ranks[1]["rates"] == [plan.at(step).lr for step in range(7)]
    model = Linear()
    alone = trainer_of(tmp_path / "alone", loader_of(dataset), model)
    alone.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert model.seen == names(loader_of(dataset))[4:]
