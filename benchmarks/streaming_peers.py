"""The readers that ``streaming.py`` holds side by side, each set up as its own documentation says.

All read the same samples, from a folder or from the same server, and hand out batches of 64 dicts with ``__key__`` and
``bin``; nothing is decoded. Those with a format of their own read it, converted from the same samples. A reader is
made in a process of its own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from streaming_data import BATCH, BUCKETS, SEED, Data, unfinished

_BUFFER = 1000  # webdataset's default, and that of datasets


@dataclass(frozen=True)
class Place:
    """Where to read from: the data's own folder, or a server that has it.

    Attributes:
        endpoint: The server's url, or None.
        scratch: An empty folder for what a reader keeps.
    """

    data: Data
    endpoint: str | None
    scratch: Path

    def urls(self, bucket: str) -> list[str]:
        """Return where a bucket's tars are."""
        root = self.data.root if self.endpoint is None else self.endpoint
        return [f"{root}/tar/{name}" for name in self.data.shards(bucket)]

    def s3_environment(self) -> dict[str, str]:
        """Return variables for clients that insist on credentials; the server checks none."""
        return {
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class Reader:
    """One way of reading the samples. Making one imports its library and no more.

    Args:
        place: Where the samples are.
        num_workers: Processes or threads beside the one that takes the batches.
    """

    packages: tuple[str, ...] = ()
    order = ""
    """What the reader promises about the mixture and the order in a bucket, in a few words."""
    has_state = True
    is_ceiling = False

    def __init__(self, place: Place, num_workers: int) -> None:
        self.place, self.num_workers = place, num_workers

    @classmethod
    def convert(cls, data: Data) -> Path:
        """Write the reader's own format if it is not there, and return the folder that it reads."""
        return data.root / "tar"

    def connect(self) -> None:
        """Make clients and read what does not grow with the samples, where the library has such a step."""

    def batches(self) -> Iterator[Any]:
        """Build everything else and yield one pass, or the rest of it after ``resume``."""
        raise NotImplementedError

    def samples(self, batch: Any) -> list[Any]:
        """Return the samples of a batch."""
        return list(batch)

    def num_bytes(self, batch: Any) -> int:
        """Return how much content a batch holds."""
        return sum(len(sample["bin"]) for sample in batch)

    def state(self) -> Any:
        """Return what a checkpoint would hold after the batches taken so far."""
        raise NotImplementedError

    def resume(self, state: Any) -> None:
        """Begin the next ``batches`` where a state was taken."""
        raise NotImplementedError


class Ours(Reader):
    """``CurriculumLoader`` over one stage that weighs all buckets alike, so that one pass has every sample once."""

    packages = ("curriculum-sampler", "torch")
    order = "exact mix; runs shuffled, then samples"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        import curriculum_sampler
        import curriculum_sampler.dataset
        import curriculum_sampler.loader

        self._library = curriculum_sampler
        self._state: Any = None

    def connect(self) -> None:
        load = self._library.Manifest.load
        if self.place.endpoint is None:
            self.manifest = load(self.place.data.root / "tar")
        else:
            self.manifest = load("s3://tar", endpoint_url=self.place.endpoint, anonymous=True)

    def options(self) -> dict[str, Any]:
        """Return further options of the loader."""
        return {"num_workers": self.num_workers}

    def make_loader(self, stages: dict[str, dict[str, float]], steps: int) -> Any:
        """Make a loader over stages of equal length, each with its mixture."""
        library = self._library
        schedule = library.StageSchedule(
            [library.Stage(name, mixture, steps=steps) for name, mixture in stages.items()]
        )
        dataset = library.CurriculumDataset(self.manifest, decode=None)
        return library.CurriculumLoader(
            dataset, schedule, batch_size=BATCH, seed=SEED, collate=list, **self.options()
        )

    def batches(self) -> Iterator[Any]:
        self._loader = self.make_loader({"all": dict.fromkeys(BUCKETS, 1)}, self.place.data.num_steps)
        if self._state is not None:
            self._loader.load_state_dict(self._state)
        return iter(self._loader)

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._state = state


class OursThreads(Ours):
    """Worker threads: what they read is handed over without pickling; what is fetched ahead stays in memory."""

    def options(self) -> dict[str, Any]:
        return {"num_workers": self.num_workers, "workers": "threads"}


class OursProcesses(Ours):
    """Worker processes, which have an interpreter each; what is fetched ahead is in a folder that they share."""

    def options(self) -> dict[str, Any]:
        # Empty at first: the default folder would still hold what the run before has fetched.
        cache = self.place.scratch / "cache"
        return {"num_workers": self.num_workers, "workers": "processes", "cache_dir": cache}


class OursFolder(OursThreads):
    """Worker threads with such a folder."""

    def options(self) -> dict[str, Any]:
        return {**super().options(), "cache_dir": self.place.scratch / "cache"}


class Webdataset(Reader):
    """``RandomMix`` over a ``WebDataset`` of each bucket; from a server through ``curl``, as it does by itself."""

    packages = ("webdataset", "torch")
    order = "random mix; order of the shards"
    has_state = False
    buffer = 0

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        import torch.utils.data
        import webdataset

        self._library, self._torch_data = webdataset, torch.utils.data

    def batches(self) -> Iterator[Any]:
        def opened(bucket: str) -> Any:
            shuffled = len(self.place.data.shards(bucket)) if self.buffer else False
            source = self._library.WebDataset(
                self.place.urls(bucket), shardshuffle=shuffled, empty_check=False, seed=SEED
            )
            return source.shuffle(self.buffer) if self.buffer else source

        # The default mix ends with its first bucket; this one ends when every sample was had.
        mixed = self._library.RandomMix([opened(bucket) for bucket in BUCKETS], longest=True)
        return batched_by_torch(mixed, self.num_workers)


class WebdatasetShuffled(Webdataset):
    """The same with shuffled shards and a shuffle buffer of its default size for each bucket."""

    order = "random mix; shards shuffled, then a buffer of 1,000"
    buffer = _BUFFER


class Mosaic(Reader):
    """``StreamingDataset`` with a ``Stream`` for each bucket, in its own format."""

    packages = ("mosaicml-streaming", "torch")
    order = "random mix, planned over the pass; shuffled"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        os.environ.update(place.s3_environment())
        if place.endpoint is not None:
            os.environ["S3_ENDPOINT_URL"] = place.endpoint
        _leave_torchvision_out()
        import streaming

        self._library = streaming
        self._state: Any = None
        # Runs that were cut short leave shared memory behind, in which it would find another run's state.
        streaming.base.util.clean_stale_shared_memory()

    @classmethod
    def convert(cls, data: Data) -> Path:
        home = data.root / "mds"
        if not home.exists():
            _leave_torchvision_out()
            import streaming

            columns = {"__key__": "str", "bin": "bytes"}
            with unfinished(home) as folder:
                for bucket in BUCKETS:
                    with streaming.MDSWriter(out=str(folder / bucket), columns=columns) as writer:
                        for sample in data.samples(bucket):
                            writer.write(sample)
        return home

    def batches(self) -> Iterator[Any]:
        def stream(bucket: str) -> Any:
            if self.place.endpoint is None:
                return self._library.Stream(local=str(self.place.data.root / "mds" / bucket))
            return self._library.Stream(
                remote=f"s3://mds/{bucket}", local=str(self.place.scratch / "mds" / bucket)
            )

        dataset = self._library.StreamingDataset(
            streams=[stream(bucket) for bucket in BUCKETS],
            shuffle=True,
            shuffle_seed=SEED,
            batch_size=BATCH,
            num_canonical_nodes=1,
        )
        self._loader = self._library.StreamingDataLoader(
            dataset, batch_size=BATCH, num_workers=self.num_workers, collate_fn=_in_a_dict
        )
        if self._state is not None:
            self._loader.load_state_dict(self._state)
        return iter(self._loader)

    def samples(self, batch: Any) -> list[Any]:
        return list(batch["samples"])

    def num_bytes(self, batch: Any) -> int:
        return super().num_bytes(batch["samples"])

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._state = state


class Litdata(Reader):
    """``CombinedStreamingDataset`` over a ``StreamingDataset`` of each bucket, in its own format."""

    packages = ("litdata", "torch")
    order = "random mix; chunks shuffled, then samples in a chunk"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        os.environ.update(place.s3_environment())
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(place.scratch / "litdata")
        import litdata
        from litdata.streaming import downloader

        self._library = litdata
        self._state: Any = None
        # Its own client would be the faster one, but takes https only; boto3 is what is left without it.
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True

    @classmethod
    def convert(cls, data: Data) -> Path:
        home = data.root / "litdata"
        if not home.exists():
            from litdata.streaming.writer import BinaryWriter

            with unfinished(home) as folder:
                for bucket in BUCKETS:
                    writer = BinaryWriter(str(folder / bucket), chunk_bytes="64MB")
                    for number, sample in enumerate(data.samples(bucket)):
                        writer.add_item(number, sample)
                    writer.done()
                    writer.merge()
        return home

    def batches(self) -> Iterator[Any]:
        def opened(bucket: str) -> Any:
            if self.place.endpoint is None:
                return self._library.StreamingDataset(
                    str(self.place.data.root / "litdata" / bucket), shuffle=True, seed=SEED
                )
            return self._library.StreamingDataset(
                f"s3://litdata/{bucket}",
                cache_dir=str(self.place.scratch / "litdata" / bucket),
                shuffle=True,
                seed=SEED,
                storage_options={"endpoint_url": self.place.endpoint},
            )

        # By weights it would end with its first bucket; this takes buckets by what is left of them.
        mixed = self._library.CombinedStreamingDataset(
            [opened(bucket) for bucket in BUCKETS], seed=SEED, iterate_over_all=True
        )
        self._loader = self._library.StreamingDataLoader(
            mixed, batch_size=BATCH, num_workers=self.num_workers, collate_fn=_as_it_is
        )
        if self._state is not None:
            self._loader.load_state_dict(self._state)
        return iter(self._loader)

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._state = state


class HuggingFace(Reader):
    """``interleave_datasets`` over a streamed ``webdataset`` of each bucket."""

    packages = ("datasets", "torch", "torchdata")
    order = "random mix; order of the shards"
    buffer = 0

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        os.environ.update(
            HF_HOME=str(place.scratch / "huggingface"), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1"
        )
        import datasets
        from torchdata.stateful_dataloader import StatefulDataLoader

        self._library, self._loader_type = datasets, StatefulDataLoader
        self._state: Any = None

    def batches(self) -> Iterator[Any]:
        def opened(bucket: str) -> Any:
            source = self._library.load_dataset(
                "webdataset", data_files={"train": self.place.urls(bucket)}, split="train", streaming=True
            )
            return source.shuffle(seed=SEED, buffer_size=self.buffer) if self.buffer else source

        mixed = self._library.interleave_datasets(
            [opened(bucket) for bucket in BUCKETS],
            probabilities=[1 / len(BUCKETS)] * len(BUCKETS),
            seed=SEED,
            # What ends with the first bucket, or repeats the ended ones, would not be one pass.
            stopping_strategy="all_exhausted_without_replacement",
        )
        self._loader = self._loader_type(
            mixed, batch_size=BATCH, num_workers=self.num_workers, collate_fn=_as_it_is
        )
        if self._state is not None:
            self._loader.load_state_dict(self._state)
        return iter(self._loader)

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._state = state


class HuggingFaceShuffled(HuggingFace):
    """The same with its shuffle of shards and a buffer of its default size."""

    order = "random mix; shards shuffled, then a buffer of 1,000"
    buffer = _BUFFER


class Energon(Reader):
    """A blended metadataset over the same tars, prepared by its own command; local only."""

    packages = ("megatron-energon", "torch")
    order = "random mix; slices of shards, then a buffer of 1,000"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        if place.endpoint is not None:
            raise NotImplementedError("reads S3 through a profile of multi-storage-client, which lists")
        import megatron.energon

        self._library = megatron.energon
        self._state: Any = None

    @classmethod
    def convert(cls, data: Data) -> Path:
        home = data.folder / "energon"  # beside the root: it refers to the same tars
        if not home.exists():
            with unfinished(home) as folder:
                for bucket in BUCKETS:
                    _prepare_for_energon(data, bucket, folder / bucket)
                lines = [
                    "__module__: megatron.energon",
                    "__class__: MetadatasetV2",
                    "splits:",
                    "  train:",
                    "    blend:",
                    *(f"      - {{weight: 1, path: ./{bucket}}}" for bucket in BUCKETS),
                ]
                (folder / "blend.yaml").write_text("\n".join(lines) + "\n")
        return data.root / "tar"

    def batches(self) -> Iterator[Any]:
        library = self._library
        from megatron.energon.flavors.crude import CrudeSample

        class AsItIs(library.DefaultTaskEncoder[CrudeSample, CrudeSample, list[Any], list[Any]]):  # type: ignore[misc, name-defined]
            """Leaves samples alone and batches them as a list."""

            cookers = (library.Cooker(library.stateless(_as_it_is)),)
            decoder = None

            def batch(self, samples: list[Any]) -> list[Any]:
                return samples

        dataset = library.get_train_dataset(
            self.place.data.folder / "energon" / "blend.yaml",
            batch_size=BATCH,
            shuffle_buffer_size=_BUFFER,
            max_samples_per_sequence=100,
            worker_config=library.WorkerConfig(rank=0, world_size=1, num_workers=self.num_workers),
            task_encoder=AsItIs(),
        )
        self._loader = library.get_savable_loader(dataset)
        if self._state is not None:
            self._loader.restore_state_rank(self._state)
        # It goes on for ever, so a pass is counted; there is no promise that each sample is in it once.
        return islice(iter(self._loader), self.place.data.num_steps)

    def state(self) -> Any:
        return self._loader.save_state_rank()

    def resume(self, state: Any) -> None:
        self._state = state


def batched_by_torch(samples: Any, num_workers: int) -> Iterator[Any]:
    """Put samples into lists where they are read, by torch's ``DataLoader``."""
    import torch.utils.data

    class Batched(torch.utils.data.IterableDataset[list[Any]]):
        def __iter__(self) -> Iterator[list[Any]]:
            source = iter(samples)
            while batch := list(islice(source, BATCH)):
                yield batch

    loader: Any = torch.utils.data.DataLoader(Batched(), batch_size=None, num_workers=num_workers)
    return iter(loader)


def _as_it_is(given: Any) -> Any:
    return given


def _in_a_dict(samples: list[Any]) -> dict[str, list[Any]]:
    # streaming's loader counts what it yielded, for its state, by the first value of a dict.
    return {"samples": samples}


def _leave_torchvision_out() -> None:
    """streaming's pictures part loads torchvision, whose builds fit only one version of torch; bytes need neither."""
    from types import ModuleType

    sys.modules.setdefault("streaming.vision", ModuleType("streaming.vision"))


def _prepare_for_energon(data: Data, bucket: str, folder: Path) -> None:
    folder.mkdir()
    for name in data.shards(bucket):
        (folder / Path(name).name).symlink_to((data.root / "tar" / name).resolve())
    energon = Path(sys.executable).with_name("energon")
    options = [
        "--non-interactive",
        "--split-ratio",
        "1,0,0",
        "--sample-type",
        "CrudeWebdataset",
        "--no-progress",
    ]
    ran = subprocess.run(
        [energon, "prepare", *options, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ran.returncode:
        raise OSError(f"energon prepare: {ran.stdout.strip().splitlines()[-1]}")


OURS: dict[str, type[Ours]] = {
    "ours": Ours,
    "ours, threads": OursThreads,
    "ours, processes": OursProcesses,
    "ours, threads, cache folder": OursFolder,
}
PEERS: dict[str, type[Reader]] = {
    "webdataset": Webdataset,
    "webdataset, shuffled": WebdatasetShuffled,
    "mosaicml-streaming (MDS)": Mosaic,
    "litdata (its format)": Litdata,
    "datasets": HuggingFace,
    "datasets, shuffled": HuggingFaceShuffled,
    "megatron-energon": Energon,
}
