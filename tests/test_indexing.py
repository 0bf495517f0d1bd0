"""Tars made by others become a data set, or the reason why not is told."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.errors import ArgumentError, ShardError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.indexing import index_shards, index_tar
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.sliding import SlidingWindow
from curriculum_sampler.storage import Storage

from .data_fixtures import (
    WatchedStorage,
    labelled,
    read_by_webdataset,
    s3_bucket,
    s3_endpoint,
    storage,
    tar_bytes,
)

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def raw(manifest: Manifest) -> list[dict[str, object]]:
    samples = CurriculumDataset(manifest, decode=None).sequential()
    return [
        {name: value for name, value in sample.items() if name not in ("__bucket__", "__index__")}
        for sample in samples
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_directories_long_names_and_empty_files_are_no_obstacle(
    storage: Storage, format: int
) -> None:
    long = "folder/" * 12 + "n" * 90 if format == tarfile.USTAR_FORMAT else "folder/" * 30 + "n" * 200
    storage.write(
        "x/easy-0.tar",
        tar_bytes(
            {
                "README": b"no sample",
                "d/": b"",
                "d/a.txt": b"1",
                "d/.hidden": b"no",
                "d/a.seg.PNG": b"",
                "__meta__": b"no",
                f"{long}.txt": b"22",
            },
            format,
        ),
    )
    manifest = index_shards(storage, {"easy": ["x/easy-0.tar"]})
    assert raw(manifest) == [{"__key__": "d/a", "txt": b"1", "seg.png": b""}, {"__key__": long, "txt": b"22"}]


def test_webdatasets_own_writer_is_read_as_webdataset_reads_it(tmp_path: Path) -> None:
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"easy-{shard}.tar")) as writer:
            for number in range(5):
                writer.write(
                    {
                        "__key__": f"s{shard}/{number:03}",
                        "cls": number,
                        "json": {"n": number},
                        "bin": b"x" * 700,
                    }
                )
    manifest = index_shards(tmp_path, lambda name: name.partition("-")[0])
    theirs = read_by_webdataset([placed.url for placed in manifest.buckets["easy"]])
    expected = [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in theirs
    ]
    assert len(expected) == 10
    assert raw(manifest) == expected


def test_gnu_tar_with_links_is_refused_and_without_is_read(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.txt", "a.cls", "b.txt"):
        (source / name).write_bytes(name.encode())
    os.symlink("b.txt", source / "c.txt")
    command = ["tar", "--sort=name", "-C", str(source), "-cf", str(tmp_path / "easy.tar"), "."]
    subprocess.run(command, check=True)
    with pytest.raises(ShardError, match=r"easy\.tar: member '\./c\.txt' is a symbolic link.*--dereference"):
        index_shards(tmp_path, {"easy": ["easy.tar"]})
    subprocess.run([*command[:1], "--dereference", "--hard-dereference", *command[1:]], check=True)
    assert [sample["__key__"] for sample in raw(index_shards(tmp_path, {"easy": ["easy.tar"]}))] == [
        "./a",
        "./b",
        "./c",
    ]


def test_a_bucket_that_cannot_be_written_to_is_indexed_from_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / "index"
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/a.tar").write_bytes(tar_bytes({"1.txt": b"1"}))
    manifest = index_shards(tmp_path / "tars", {"easy": ["a.tar"]}, destination=home)
    assert [path.name for path in (tmp_path / "tars").iterdir()] == ["a.tar"]
    assert raw(Manifest.load(home)) == raw(manifest) == [{"__key__": "1", "txt": b"1"}]
    with pytest.raises(ArgumentError, match=r"describes tars at .*tars, so it cannot also describe tars at"):
        write_shards(home, {"easy": labelled(1)}, split="val")


def test_samples_apart_are_refused_by_key_with_the_tars_url() -> None:
    home = MemoryStorage("apart", {"a.tar": tar_bytes({"1.png": b"", "2.png": b"", "1.txt": b""})})
    with pytest.raises(
        ShardError, match=r"memory://apart/a\.tar: the members of sample '1' are not adjacent"
    ):
        index_shards(home, {"easy": ["a.tar"]})
    assert list(home.objects) == ["a.tar"]


def test_a_damaged_tar_is_named_and_no_manifest_appears() -> None:
    home = MemoryStorage(
        "damaged", {"a.tar": tar_bytes({"1.txt": b"1"}), "b.tar": tar_bytes({"1.txt": b"1"})[:1024]}
    )
    with pytest.raises(ShardError, match=r"memory://damaged/b\.tar: the archive is cut"):
        index_shards(home, {"easy": ["a.tar", "b.tar"]})
    assert "manifest.json" not in home.objects


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ({}, "no tars"),
        ({"easy": []}, "Bucket 'easy' has no tars"),
        (lambda name: None, "no tars"),
        ({"easy": ["empty.tar"]}, r"empty\.tar of bucket 'easy' holds no samples"),
        ({"ea/sy": ["a.tar"]}, "Bucket name 'ea/sy'"),
        ({"easy": ["a.tar", "a.tar"]}, r"'a\.tar' is listed twice"),
        ({"easy": ["../a.tar"]}, "relative path"),
    ],
)
def test_a_wrong_list_of_tars_is_refused(buckets, message: str) -> None:  # type: ignore[no-untyped-def]
    home = MemoryStorage(
        objects={"a.tar": tar_bytes({"1.txt": b"1"}), "empty.tar": tar_bytes({"README": b""})}
    )
    with pytest.raises(ArgumentError, match=message):
        index_shards(home, buckets)
    assert "manifest.json" not in home.objects


def test_a_function_sorts_all_tars_into_buckets() -> None:
    tar = tar_bytes({"1.txt": b"1"})
    home = MemoryStorage(
        objects=dict.fromkeys(["b/2.tar", "b/10.tar", "a/1.tar", "skip/1.tar", "notes.txt"], tar)
    )
    manifest = index_shards(home, lambda name: None if name.startswith("skip") else name.partition("/")[0])
    assert {
        bucket: [placed.shard.name for placed in shards] for bucket, shards in manifest.buckets.items()
    } == {
        "a": ["a/1.tar"],
        "b": ["b/10.tar", "b/2.tar"],
    }


def test_indexing_again_needs_leave_and_leaves_the_tars_alone() -> None:
    home = MemoryStorage(objects={"a.tar": tar_bytes({"1.txt": b"1"})})
    first = index_shards(home, {"easy": ["a.tar"]})
    with pytest.raises(ArgumentError, match="has a split 'train' already"):
        index_shards(home, {"hard": ["a.tar"]})
    again = index_shards(home, {"hard": ["a.tar"]}, overwrite=True, difficulties={"hard": (1, 2)})
    assert again.bucket_sizes == {"hard": 1}
    assert again.bucket_fingerprints["hard"] == first.bucket_fingerprints["easy"]
    assert sorted(home.objects) == ["a.tar", "a.tar" + INDEX_SUFFIX, "manifest.json"]


def test_a_tar_is_read_once_however_large_its_samples_are() -> None:
    home = WatchedStorage({"a.tar": tar_bytes({f"{n:04}.bin": bytes(n % 7 * 9000) for n in range(200)})})
    index = index_tar(home, "a.tar")
    assert len(index) == 200
    assert sum(count for _, _, count in home.reads) <= len(home.objects["a.tar"])


@given(sizes=st.lists(st.integers(0, 3000), max_size=12), window=st.integers(512, 5000))
def test_a_window_of_any_size_shows_the_same_bytes_and_fetches_each_once(
    sizes: list[int], window: int
) -> None:
    tar = tar_bytes({f"{n}.bin": bytes([n]) * size for n, size in enumerate(sizes)})
    home = WatchedStorage({"a.tar": tar})
    sliding = SlidingWindow(home, "a.tar", home.stat("a.tar"), window_bytes=window)
    place = 0
    for size in sizes:
        stop = place + 512 + -(-size // 512) * 512
        assert sliding.read(place, 512) == tar[place : place + 512]
        if stop < len(tar):
            assert sliding.read(stop, 512) == tar[stop : stop + 512]
        assert sliding.read(place, stop - place) == tar[place:stop]
        place = sliding.keep_from = stop
    assert sum(count for _, _, count in home.reads) <= len(tar)
