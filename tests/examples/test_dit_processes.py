"""Laws of DiT's sharded training: it is the training of one process, whatever each rank keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from common.bucketed_shards import write_bucketed_shards
from dit import train
from dit.flags import parse_arguments

import curriculum_sampler as cs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COUNTS = {"train": {"easy": 12, "medium": 12, "hard": 12}, "val": {"easy": 2, "medium": 2, "hard": 2}}
CURRICULUM = """
[[stages]]
name = "easy"
mixture = { easy = 1.0 }
steps = 3
lr = 2e-3

[[stages]]
name = "medium"
mixture = { easy = 0.30, medium = 0.70 }
steps = 3
lr = 1e-3

[[stages]]
name = "hard"
mixture = { easy = 0.25, medium = 0.25, hard = 0.50 }
steps = 2
lr = 5e-4
"""
GUARD_SECONDS = 200
SHARDED = ("--fsdp", "--gradient_checkpointing")


class Runs:
    """Calls of the trainer on one set of shards: steps of eight samples, in two micro-batches."""

    def __init__(self, folder: Path) -> None:
        self.shards = folder / "shards"
        self.curriculum = folder / "curriculum.toml"
        self.curriculum.write_text(CURRICULUM)
        write_bucketed_shards(str(self.shards), COUNTS, seed=3, samples_per_shard=4, height=32, width=24)

    def flags(self, output: Path, *more: Any) -> list[str]:
        """A tiny run's flags; ``more`` wins over those before it."""
        fixed = (
            "--model_preset tiny --height 32 --width 24 --train_batch_size 4 --gradient_accumulation_steps 2"
            " --dataloader_num_workers 0 --logging_steps 1 --checkpointing_steps 1000 --validation_steps 1000"
            " --num_validation_samples 1 --num_validation_inference_steps 2 --report_to jsonl --log_sample_ids"
            f" --s3_prefixes {self.shards} --curriculum_config {self.curriculum} --output_dir {output}"
        )
        return [*fixed.split(), *(str(word) for word in more)]

    def alone(self, output: Path, *more: Any) -> Path:
        """Train in this process; return the output folder."""
        assert train.main(self.flags(output, *more)) == 0
        return output

    def together(self, output: Path, *more: Any) -> Path:
        """Train in two processes."""
        torchrun(2, EXAMPLES / "dit" / "train.py", *self.flags(output, *more))
        return output


def torchrun(ranks: int, script: Path, *words: Any) -> None:
    """Run a script in processes that know each other, and fail with what they said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        + [str(word) for word in (script, *words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=GUARD_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # a launcher that is killed leaves its ranks behind, waiting for each other
        said, _ = process.communicate()
        raise AssertionError(f"{script.name} hung on {ranks} ranks: {said}") from None
    assert process.returncode == 0, said


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind of a run's ``metrics.jsonl``."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def column(folder: Path, name: str, kind: str = "train") -> dict[int, Any]:
    """One value of those rows by step."""
    return {row["step"]: row[name] for row in rows(folder, kind)}


def latest(folder: Path) -> dict[str, Any]:
    """The run's newest checkpoint."""
    content: dict[str, Any] = torch.load(folder / "latest_checkpoint.pt", weights_only=True)
    return content


def form(tree: Any) -> Any:
    """What is left of nested dicts and lists when each tensor is told by type, shape, and room in the file."""
    if isinstance(tree, torch.Tensor):
        return type(tree).__name__, tree.dtype, tuple(tree.shape), tree.untyped_storage().nbytes()
    if isinstance(tree, dict):
        return {name: form(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [form(value) for value in tree]
    return type(tree).__name__


def flat(tree: Any) -> torch.Tensor:
    """All tensors of a tree end to end."""
    if isinstance(tree, torch.Tensor):
        return tree.flatten().double()
    parts = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return torch.cat([torch.zeros(0, dtype=torch.float64), *map(flat, parts)])


def assert_same_training(one: Path, other: Path) -> None:
    """Two runs saw the same samples, and trained alike up to what the order of a sum makes of it."""
    assert column(one, "sample_ids") == column(other, "sample_ids")
    for name in ("loss", "grad_norm"):
        assert column(other, name) == pytest.approx(column(one, name), rel=2e-3), name
    a, b = latest(one), latest(other)
    assert a["samples_seen"] == b["samples_seen"]
    # How far the averages lag behind the weights tells how far these have moved.
    moved = torch.linalg.norm(flat(a["model"]) - flat(a["ema"]))
    bounds = {"model": moved, "ema": moved, "optimizer": 1e-2 * torch.linalg.norm(flat(a["optimizer"]))}
    for part, bound in bounds.items():
        assert torch.linalg.norm(flat(a[part]) - flat(b[part])) < 1e-3 * bound, part


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in one process; read it, do not write into it."""
    return runs.alone(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def sharded(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with two sharded ranks; read it, do not write into it."""
    return runs.together(tmp_path_factory.mktemp("sharded"), *SHARDED)


@pytest.mark.slow
def test_sharded_ranks_train_what_one_process_trains(whole: Path, sharded: Path) -> None:
    assert_same_training(whole, sharded)


@pytest.mark.slow
def test_sharded_ranks_hold_out_the_losses_of_one_process(whole: Path, sharded: Path) -> None:
    ours, theirs = (rows(folder, "validation") for folder in (sharded, whole))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [0, 3, 6, 8]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss_by_bucket"] == pytest.approx(other["loss_by_bucket"], rel=2e-3)
        assert mine["masked_l1"] == pytest.approx(other["masked_l1"], rel=2e-3)
    assert (sharded / "samples" / "step_8.png").exists()


@pytest.mark.slow
def test_a_sharded_checkpoint_is_the_file_that_one_process_writes(whole: Path, sharded: Path) -> None:
    assert form(latest(sharded)) == form(latest(whole))


@pytest.mark.slow
def test_a_run_of_sharded_ranks_goes_on_in_one_process(runs: Runs, whole: Path, tmp_path: Path) -> None:
    runs.together(tmp_path, *SHARDED, "--max_steps_this_run", 4)
    runs.alone(tmp_path, "--resume_from_checkpoint", "latest")
    assert_same_training(whole, tmp_path)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_sharded_ranks(runs: Runs, whole: Path, tmp_path: Path) -> None:
    runs.alone(tmp_path, "--max_steps_this_run", 4)
    runs.together(tmp_path, *SHARDED, "--resume_from_checkpoint", "latest")
    assert_same_training(whole, tmp_path)
    assert form(latest(tmp_path)["optimizer"]) == form(latest(whole)["optimizer"])


@pytest.mark.slow
def test_looking_at_the_averages_leaves_sharded_training_as_it_was(
    runs: Runs, sharded: Path, tmp_path: Path
) -> None:
    runs.together(tmp_path, *SHARDED, "--validation_steps", 1)
    ours, theirs = latest(tmp_path), latest(sharded)
    for part in ("model", "ema", "optimizer"):
        assert torch.equal(flat(ours[part]), flat(theirs[part])), part
    assert column(tmp_path, "loss") == column(sharded, "loss")


@pytest.mark.slow
def test_a_stage_left_early_is_closed_by_sharded_ranks_too(runs: Runs, tmp_path: Path) -> None:
    runs.together(tmp_path, *SHARDED, "--difficulty", "easy", "--max_steps_this_run", 2)
    next_stage = ("--difficulty", "medium", "--max_train_steps", 3, "--resume_from_checkpoint", "latest")
    runs.together(tmp_path, *SHARDED, *next_stage)
    assert (tmp_path / "checkpoint_stage1-easy_step_2.pt").exists()
    assert list(column(tmp_path, "loss_by_bucket", "validation")) == [0, 2, 3]


@pytest.mark.slow
def test_in_bfloat16_sharded_ranks_keep_their_weights_in_float32(runs: Runs, tmp_path: Path) -> None:
    half = ("--mixed_precision", "bf16", "--max_steps_this_run", 4)
    one = runs.alone(tmp_path / "one", *half)
    two = runs.together(tmp_path / "two", *SHARDED, *half)
    assert form(latest(two)) == form(latest(one))
    assert column(two, "loss") == pytest.approx(column(one, "loss"), rel=2e-3)


@pytest.mark.slow
def test_compiled_sharded_weights_keep_their_names(runs: Runs, whole: Path, tmp_path: Path) -> None:
    runs.together(tmp_path, *SHARDED, "--torch_compile", "--max_steps_this_run", 1)
    assert list(latest(tmp_path)["model"]) == list(latest(whole)["model"])
    assert column(tmp_path, "loss")[1] == pytest.approx(column(whole, "loss")[1], rel=2e-3)


APART = """
import os, sys
from dit import train
import curriculum_sampler as cs

os.chdir(os.path.join(sys.argv[1], os.environ["RANK"]))
try:
    train.main(sys.argv[2:])
except cs.ArgumentError as error:
    assert "The step of the checkpoint found differs between ranks: [1, 0]" in str(error), error
else:
    raise AssertionError("it trained")
"""


@pytest.mark.slow
def test_ranks_that_find_different_checkpoints_all_stop(runs: Runs, tmp_path: Path) -> None:
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    runs.alone(tmp_path / "0" / "output", "--max_steps_this_run", 1)
    script = tmp_path / "apart.py"
    script.write_text(APART)
    flags = runs.flags(Path("output"), "--fsdp", "--resume_from_checkpoint", "latest")
    torchrun(2, script, tmp_path, *flags)


def test_one_process_says_that_it_has_nothing_to_shard(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.alone(tmp_path, "--fsdp", "--max_steps_this_run", 1)
    assert "--fsdp does nothing in one process: start several with torchrun." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--mixed_precision", "fp16"], "Say --mixed_precision bf16, or leave --fsdp out"),
        (["--use_8bit_adam"], "Leave one of the two out"),
    ],
)
def test_what_cannot_be_sharded_is_refused(flags: list[str], says: str) -> None:
    with pytest.raises(cs.ArgumentError, match=says):
        parse_arguments(["--data_root", "shards", "--fsdp", *flags])


PARTS = """
import torch
import torch.distributed as distributed
from common.ranks import joined_ranks
from common.sharded import gathered, moments_in_parts, part_of, shard, whole
from torch import nn


class Clock(nn.Linear):
    def forward(self, time):
        self.seen = time
        return super().forward(time[:, None])


def main(rank):
    torch.manual_seed(5)

    clock = Clock(1, 1)
    shard(clock, [], torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        clock(torch.tensor([999.4]))
    assert clock.seen.item() == torch.tensor(999.4).item()  # in bfloat16 it would be 1000
    assert clock.weight.dtype == torch.float32

    network = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 2), nn.Linear(2, 1))  # 7, 2 and 1 rows for 3 ranks
    wholes = [weight.detach().clone() for weight in network.parameters()]
    shard(network, [network[0]], torch.float32)
    weights = list(network.parameters())

    for one, weight in zip(wholes, weights, strict=True):
        assert torch.equal(whole(weight), one) and whole(weight).shape == weight.shape
        part = part_of(one, weight)
        assert torch.equal(part.to_local(), weight.to_local())
        assert part.to_local().untyped_storage().nbytes() == 4 * part.to_local().numel()  # nothing holds on to the whole
        assert part_of(one, one) is one and whole(one) is one

    optimizer = torch.optim.AdamW(weights, lr=0.1)
    network(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()
    saved = gathered({"tree": [optimizer.state_dict(), "text"]})["tree"][0]
    tensors = [saved["state"][place][name] for place in range(6) for name in ("exp_avg", "exp_avg_sq")]
    assert saved["state"][0]["step"] == 1
    if rank == 0:
        assert [tuple(tensor.shape) for tensor in tensors[::2]] == [tuple(one.shape) for one in wholes]
    else:
        assert tensors == [None] * 12

    everywhere = [saved]
    distributed.broadcast_object_list(everywhere)
    other = torch.optim.AdamW(weights, lr=0.1)
    other.load_state_dict(moments_in_parts(everywhere[0], other))
    for weight in weights:
        for name, moment in optimizer.state[weight].items():
            assert torch.equal(whole(moment), whole(other.state[weight][name])), name


with joined_ranks() as ranks:
    main(ranks.rank)
"""


def test_parts_put_together_are_the_whole_even_where_a_rank_has_none(tmp_path: Path) -> None:
    script = tmp_path / "parts.py"
    script.write_text(PARTS)
    torchrun(3, script)
