"""Ours and its peers behind one small interface, each set up as its own documentation says.

Every peer mixes ``k`` buckets of equal size by given weights, shuffles within them, and yields batches of 256.
Sample ``i`` of bucket ``b`` has the number ``b * size + i``, so that any draw tells its bucket. A peer is imported
when it is made, in a process of its own.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from types import SimpleNamespace
from typing import Any

BATCH = 256
SEED = 17


class Peer:
    """One way of mixing shuffled buckets.

    Args:
        size: Samples in each bucket.
        weights: Weight of each bucket.
    """

    packages: tuple[str, ...] = ()
    order = ""
    """What the peer promises about the mixture and about samples within a bucket, in a few words."""
    plans_ahead = False
    """Whether arrays of the length of a bucket or epoch are made before they are used."""
    largest_resume: int | None = 10**12
    """The furthest draw at which resuming is tried; None where the peer has no state to resume from."""

    resume_is_checked = True
    """Whether ``saved`` tells the true state, so that exact continuation can be checked."""

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        self.size = size
        self.weights = list(weights)

    def refusal(self) -> str | None:
        """Say why this size is not tried, or None."""
        return None

    def batches(self) -> Iterator[Any]:
        """Build everything and yield batches from draw 0."""
        raise NotImplementedError

    def bucket_ids(self, batch: Any) -> Any:
        """Return the bucket number of each draw of a batch."""
        import numpy as np

        return np.asarray(batch) // self.size

    def labelled(self) -> Iterator[Any]:
        """Yield bucket numbers, batch by batch, of the same mixture; speed does not matter here."""
        return map(self.bucket_ids, self.batches())

    def saved(self, draw: int) -> Any:
        """Return the state that a checkpoint at ``draw`` would hold."""
        raise NotImplementedError

    def resumed(self, state: Any) -> Iterator[Any]:
        """Build everything anew and yield batches from a saved state on."""
        raise NotImplementedError


class Ours(Peer):
    """``MixtureSampler``, yielding ``Draws``: read-only arrays of bucket numbers and indices."""

    packages = ("curriculum-sampler",)
    order = "exact within a proved bound; each sample once a pass"

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import curriculum_sampler

        self._library = curriculum_sampler

    def sampler(self) -> Any:
        library = self._library
        mixture = {f"bucket {number}": weight for number, weight in enumerate(self.weights)}
        schedule = library.StageSchedule([library.Stage("only", mixture, steps=10**13 // BATCH)])
        return library.MixtureSampler(schedule.plan(dict.fromkeys(mixture, self.size), BATCH), SEED)

    def batches(self) -> Iterator[Any]:
        return iter(self.sampler())

    def bucket_ids(self, batch: Any) -> Any:
        return batch.bucket_ids

    def saved(self, draw: int) -> Any:
        return self.sampler().state_dict(step=draw // BATCH)

    def resumed(self, state: Any) -> Iterator[Any]:
        sampler = self.sampler()
        sampler.load_state_dict(state)
        return iter(sampler)


class OursAsLists(Ours):
    """The same, with every batch turned into Python integers, which is what list-yielding peers hand out."""

    def batches(self) -> Iterator[Any]:
        for batch in super().batches():
            yield list(zip(batch.bucket_ids.tolist(), batch.indices.tolist(), strict=True))

    def labelled(self) -> Iterator[Any]:
        return ([bucket for bucket, _ in batch] for batch in self.batches())

    def resumed(self, state: Any) -> Iterator[Any]:
        for batch in super().resumed(state):
            yield list(zip(batch.bucket_ids.tolist(), batch.indices.tolist(), strict=True))


class Grain(Peer):
    """``MapDataset.mix`` of shuffled, repeated ranges, read by index: its fastest public way."""

    packages = ("grain",)
    order = "exact for whole-number weights; each sample once a pass"

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import grain

        self._grain = grain

    def _batches_from(self, number: int) -> Iterator[Any]:
        # Seeds far apart: the pass number is added to the seed.
        sources = [
            self._grain.MapDataset.range(bucket * self.size, (bucket + 1) * self.size)
            .shuffle(seed=SEED + 1_000_000 * bucket)
            .repeat()
            for bucket in range(len(self.weights))
        ]
        mixed = self._grain.MapDataset.mix(sources, weights=self.weights)
        for first in count(number * BATCH, BATCH):
            yield [mixed[draw] for draw in range(first, first + BATCH)]

    def batches(self) -> Iterator[Any]:
        return self._batches_from(0)

    def saved(self, draw: int) -> Any:
        return draw // BATCH

    def resumed(self, state: Any) -> Iterator[Any]:
        return self._batches_from(state)


class TorchdataNodes(Peer):
    """``MultiNodeWeightedSampler`` over a ``RandomSampler`` of each bucket, batched by ``Batcher``."""

    packages = ("torchdata", "torch")
    order = "independent draws; each sample once a pass"
    plans_ahead = True
    # Its state holds per-source counts that are replayed draw by draw, so it has to be reached first.
    largest_resume = 10**6

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import torch
        import torchdata.nodes

        self._torch, self._nodes = torch, torchdata.nodes

    def refusal(self) -> str | None:
        # RandomSampler makes a list of integers: 44 bytes a sample were measured at 10^6.
        return too_large(44 * self.size * len(self.weights))

    def _loader(self, sources: dict[str, Any]) -> Any:
        nodes = self._nodes
        weights = {name: float(weight) for name, weight in zip(sources, self.weights, strict=True)}
        forever = nodes.StopCriteria.CYCLE_FOREVER
        mixed = nodes.MultiNodeWeightedSampler(sources, weights, forever, rank=0, world_size=1, seed=SEED)
        return nodes.Loader(nodes.Batcher(mixed, BATCH))

    def _shuffled(self) -> Any:
        sources = {}
        for bucket in range(len(self.weights)):
            generator = self._torch.Generator()
            generator.manual_seed(SEED + bucket)
            numbers = range(bucket * self.size, (bucket + 1) * self.size)
            sampler = self._torch.utils.data.RandomSampler(numbers, generator=generator)
            sources[str(bucket)] = self._nodes.SamplerWrapper(sampler)
        return self._loader(sources)

    def batches(self) -> Iterator[Any]:
        return iter(self._shuffled())

    def labelled(self) -> Iterator[Any]:
        # The sampler yields bare indices, so the buckets of the same mixture are told by unshuffled ranges.
        sources = {
            str(bucket): self._nodes.IterableWrapper(range(bucket * self.size, (bucket + 1) * self.size))
            for bucket in range(len(self.weights))
        }
        return map(self.bucket_ids, self._loader(sources))

    def saved(self, draw: int) -> Any:
        loader = self._shuffled()
        running = iter(loader)
        for _ in range(draw // BATCH):
            next(running)
        return loader.state_dict()

    def resumed(self, state: Any) -> Iterator[Any]:
        loader = self._shuffled()
        loader.load_state_dict(state)
        return iter(loader)


class StreamingPlan(Peer):
    """mosaicml-streaming's epoch planning: ``generate_work``, batching ``random``, shuffle ``py1e``.

    Its own functions over a stand-in for the data set (shards of 1,000 samples, epochs as long as a bucket), so that no
    shard has to be written or read.
    """

    packages = ("mosaicml-streaming", "torch")
    order = "exact only over an epoch; each sample once a pass"
    plans_ahead = True
    shard_size = 1000

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import sys
        from types import ModuleType

        import numpy as np

        # Its pictures part loads torchvision, whose builds fit only one version of torch. Planning needs neither.
        sys.modules["streaming.vision"] = ModuleType("streaming.vision")
        from streaming import StreamingDataset
        from streaming.base import batching, world

        self._numpy, self._batching, self._dataset = np, batching, StreamingDataset
        self._world = world.World(num_nodes=1, ranks_per_node=1, workers_per_rank=1, worker=0)

    def refusal(self) -> str | None:
        # Several arrays of the epoch's length at once: 69 bytes a draw were measured at 10^6.
        return too_large(69 * self.size)

    def _plan(self, epoch: int, drawn: int) -> Iterator[Any]:
        np, num_buckets = self._numpy, len(self.weights)
        shards = self.size // self.shard_size
        total = sum(self.weights)
        data: Any = SimpleNamespace(
            num_streams=num_buckets,
            streams=[SimpleNamespace(choose=round(self.size * weight / total)) for weight in self.weights],
            shard_offset_per_stream=np.arange(num_buckets) * shards,
            shards_per_stream=np.full(num_buckets, shards),
            samples_per_shard=np.full(num_buckets * shards, self.shard_size),
            sample_offset_per_shard=np.arange(num_buckets * shards) * self.shard_size,
            sampling_granularity=1,
            sampling_method="balanced",
            epoch_seed_change=True,
            epoch_size=self.size,
            batch_size=BATCH,
            num_canonical_nodes=1,
            initial_physical_nodes=1,
            partition_algo="relaxed",
            shuffle=True,
            shuffle_algo="py1e",
            shuffle_seed=SEED,
            shuffle_block_size=4_000_000,
        )
        data.resample_streams = lambda epoch: self._dataset.resample_streams(data, epoch)
        work = self._batching.generate_work("random", data, self._world, epoch, drawn)
        yield from work.reshape(-1, BATCH)

    def _from(self, epoch: int, drawn: int) -> Iterator[Any]:
        yield from self._plan(epoch, drawn)
        for later in count(epoch + 1):
            yield from self._plan(later, 0)

    def batches(self) -> Iterator[Any]:
        return self._from(0, 0)

    def labelled(self) -> Iterator[Any]:
        # The last batch of an epoch is filled up with -1.
        for batch in self.batches():
            yield self.bucket_ids(batch[batch >= 0])

    def saved(self, draw: int) -> Any:
        epoch, drawn = divmod(draw, self.size)
        return epoch, drawn // BATCH * BATCH

    def resumed(self, state: Any) -> Iterator[Any]:
        return self._from(*state)


class TorchWeighted(Peer):
    """``WeightedRandomSampler`` over all samples, in a ``BatchSampler``; an epoch is as long as a bucket."""

    packages = ("torch",)
    order = "independent draws; samples with replacement"
    plans_ahead = True
    largest_resume = None

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import torch

        self._torch = torch

    def refusal(self) -> str | None:
        samples = self.size * len(self.weights)
        if samples > 1 << 24:
            return "n/a (at most 2^24 samples)"
        return None

    def batches(self) -> Iterator[Any]:
        torch, data = self._torch, self._torch.utils.data
        weights = torch.tensor(self.weights, dtype=torch.float64).repeat_interleave(self.size)
        generator = torch.Generator()
        generator.manual_seed(SEED)
        sampler = data.WeightedRandomSampler(weights, self.size, replacement=True, generator=generator)
        batches = data.BatchSampler(sampler, BATCH, drop_last=True)
        return chain.from_iterable(iter(batches) for _ in count())


class NumpyPermutations(Peer):
    """What one writes by hand: ``rng.choice`` of a bucket for each draw, ``rng.permutation`` of each bucket's pass."""

    packages = ("numpy",)
    order = "independent draws; each sample once a pass"
    plans_ahead = True
    resume_is_checked = False

    def __init__(self, size: int, weights: Sequence[float]) -> None:
        super().__init__(size, weights)
        import numpy as np

        self._numpy = np
        self._shares = np.asarray(weights) / sum(weights)

    def refusal(self) -> str | None:
        return too_large(8 * self.size * len(self.weights))

    def _from(self, generator_state: Any, drawn: Sequence[int]) -> Iterator[Any]:
        np, size = self._numpy, self.size
        rng = np.random.default_rng(SEED)
        if generator_state is not None:
            rng.bit_generator.state = generator_state
        done = list(drawn)
        passes: list[tuple[int, Any]] = [(-1, None)] * len(done)
        while True:
            chosen = rng.choice(len(done), BATCH, p=self._shares)
            batch = np.empty(BATCH, dtype=np.int64)
            for bucket in range(len(done)):
                places = np.flatnonzero(chosen == bucket)
                while len(places):
                    number, first = divmod(done[bucket], size)
                    if passes[bucket][0] != number:
                        passes[bucket] = (
                            number,
                            np.random.default_rng((SEED, bucket, number)).permutation(size),
                        )
                    taken = passes[bucket][1][first : first + len(places)]
                    batch[places[: len(taken)]] = taken + bucket * size
                    done[bucket] += len(taken)
                    places = places[len(taken) :]
            yield batch

    def batches(self) -> Iterator[Any]:
        return self._from(None, [0] * len(self.weights))

    def saved(self, draw: int) -> Any:
        # What a checkpoint would hold there; which numbers the generator gives next does not matter for time.
        state = self._numpy.random.default_rng(SEED).bit_generator.state
        return state, [int(draw * share) for share in self._shares]

    def resumed(self, state: Any) -> Iterator[Any]:
        return self._from(*state)


PEERS: dict[str, type[Peer]] = {
    "ours": Ours,
    "ours, as Python lists": OursAsLists,
    "grain MapDataset.mix": Grain,
    "torchdata MultiNodeWeightedSampler": TorchdataNodes,
    "mosaicml-streaming epoch plan": StreamingPlan,
    "torch WeightedRandomSampler": TorchWeighted,
    "numpy permutations": NumpyPermutations,
}

LARGEST_BYTES = 1 << 30


def too_large(num_bytes: int) -> str | None:
    """Refuse what would allocate more than a gigabyte.

    >>> too_large(8_000), too_large(2_400_000_000)
    (None, 'n/a (needs 2.4 GB)')
    """
    if num_bytes <= LARGEST_BYTES:
        return None
    return (
        f"n/a (needs {num_bytes / 1e9:,.1f} GB)"
        if num_bytes < 1e12
        else f"n/a (needs {num_bytes / 1e12:,.0f} TB)"
    )


def first(batches: Iterator[Any], number: int) -> list[Any]:
    """Return the first batches."""
    return list(islice(batches, number))
