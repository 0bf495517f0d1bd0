"""Train a small network on handwritten digits, easy ones first, in a plain torch loop, and compare."""

import argparse
from collections.abc import Iterator

import torch
from digits import cut, load_scored_digits
from report import Snapshot, draw, tell

from curriculum_sampler import MixtureSampler, Stage, StageSchedule

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seeds", type=int, default=20, help="runs to average over")
parser.add_argument("--scale", type=float, default=1.0, help="length of the curriculum; 0.1 for a tenth")
parser.add_argument("--plot", default="digits.png", help="file to draw")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is slower on more

# The curriculum: what is easy, and how much of it when.
SHARES = {"easy": 0.40, "medium": 0.35, "hard": 0.25}  # of the samples, by rank of their score
curriculum = StageSchedule([
    Stage("easy", {"easy": 1.0}, steps=40, lr=4e-3),
    Stage("medium", {"easy": 0.30, "medium": 0.70}, steps=80, lr=2e-3, ramp=30),
    Stage("hard", {"easy": 0.25, "medium": 0.25, "hard": 0.50}, steps=280, lr=1e-3, ramp=50),
]).scaled(args.scale)  # fmt: skip
train, held_out = load_scored_digits()
buckets, held_buckets = cut(train.scores, SHARES), cut(held_out.scores, SHARES)


def run(schedule: StageSchedule, shares: dict[str, float], seed: int) -> Iterator[Snapshot]:
    torch.manual_seed(seed)  # the initial weights; the sampler has its own seed
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters())
    sampler = MixtureSampler.from_scores(schedule, train.scores, shares, batch_size=32, seed=seed)
    for step, batch in enumerate(sampler):  # batch: a list of indices into the training split
        now = sampler.plan.at(step)
        optimizer.param_groups[0]["lr"] = now.lr
        loss = torch.nn.functional.cross_entropy(model(train.images[batch]), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        is_right = (model(held_out.images).argmax(dim=1) == held_out.labels).numpy()
        accuracy = {name: is_right[held_buckets == name].mean() for name in SHARES}
        counts = {name: int((buckets[batch] == name).sum()) for name in SHARES}
        yield Snapshot(now.stage, now.mixture, counts, accuracy | {"all": is_right.mean()})


def throughout(mixture: dict[str, float]) -> StageSchedule:
    return StageSchedule([Stage(s.name, mixture, steps=s.steps, lr=s.lr) for s in curriculum.stages])


seeds, everything, last = range(args.seeds), {"all": 1.0}, curriculum.stages[-1].mixture
arms = {
    "curriculum": [list(run(curriculum, SHARES, seed)) for seed in seeds],
    "plain shuffle": [list(run(throughout(everything), everything, seed)) for seed in seeds],
    "last mixture throughout": [list(run(throughout(last), SHARES, seed)) for seed in seeds],
}
print(tell(arms))
draw(args.plot, arms)
