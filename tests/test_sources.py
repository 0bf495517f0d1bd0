"""Sources: which files make a sample, in which order, and what cannot be one."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import os
import pickle
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import ArgumentError, ShardError, StorageError
from curriculum_sampler.folder_source import FolderSource
from curriculum_sampler.grouping import split_name
from curriculum_sampler.journal import Journal
from curriculum_sampler.listing import Listing
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.source import Source
from curriculum_sampler.source_by_name import source_by_name
from curriculum_sampler.spool import spool
from curriculum_sampler.storage import Storage
from curriculum_sampler.tar_source import TarSource, tars_at

from .build_fixtures import Generated, told
from .data_fixtures import (
    FarStorage,
    WatchedStorage,
    s3_bucket,
    s3_endpoint,
    storage,
    tar_bytes,
    unprivileged,
)


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def all_of(source: Source) -> dict[str, dict[str, bytes]]:
    found = {}
    for entry in source.entries():
        sample = source.read(entry)
        assert sample.pop("__key__") == entry.key
        assert entry.key not in found
        found[entry.key] = sample
    return found


# --- folders

_words = st.text(string.ascii_letters + string.digits + "-_! ~", min_size=1, max_size=3)


@given(
    bases=st.sets(st.tuples(st.lists(_words, max_size=2).map(tuple), _words), min_size=1, max_size=12),
    extensions=st.sets(st.sampled_from(["png", "json", "mask.png", "a", "z.z"]), min_size=1),
)
def test_files_that_share_a_base_name_are_one_sample_whatever_the_names(
    bases: set[tuple[tuple[str, ...], str]], extensions: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("folder")
    expected: dict[str, dict[str, bytes]] = {}
    for folders, base in bases:
        key = "-".join((*folders, base))
        if key in expected or key.startswith("__"):
            return
        expected[key] = {}
        for extension in extensions:
            path = "/".join((*folders, f"{base}.{extension}"))
            folder(root, path)
            expected[key][extension] = path.encode()
    assert all_of(FolderSource(root)) == expected
    assert list(FolderSource(root).entries()) == list(FolderSource(root).entries())


def test_the_order_is_that_of_the_names_and_files_come_before_folders(tmp_path: Path) -> None:
    folder(tmp_path, "b.txt", "a/z.txt", "a/b/c.txt", "c.txt", "A.txt")
    assert [entry.key for entry in FolderSource(tmp_path).entries()] == ["A", "b", "c", "a-z", "a-b-c"]


def test_what_is_hidden_or_has_no_extension_is_of_no_sample(tmp_path: Path) -> None:
    folder(tmp_path, "a.txt", ".DS_Store", ".git/b.txt", "README", "__meta__.d/__x__", "b.txt")
    assert list(all_of(FolderSource(tmp_path))) == ["a", "b"]


def test_extensions_are_lower_case_and_files_keep_their_names(tmp_path: Path) -> None:
    assert all_of(FolderSource(folder(tmp_path, "a.PNG"))) == {"a": {"png": b"a.PNG"}}


def test_links_are_followed(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", "b.txt")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "elsewhere")
    assert all_of(FolderSource(tmp_path / "here")) == {"a-b": {"txt": b"b.txt"}}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "a.json", "b.png"], r"sample 'b' has no file 'json', but 'a' has one.*require= .*\(png\)"),
        (["a.png", "b.png", "b.json"], r"sample 'b' has a file 'json', but 'a' has none.*require= .*\(png\)"),
        (["a.png", "a.PNG"], "sample 'a' has two files with extension 'png'.*Rename one"),
        (["é.png"], "the key 'é' must be printable ASCII text"),
        (["a\nb.png"], "the key 'a.nb' must be printable"),
        (["__a.png"], "the key '__a' must be"),
        (["a.png", "b.tar"], "sample 'b' has no file 'png'|b.tar is an archive among loose files"),
        (["a.tar", "b.tar"], "a.tar is an archive among loose files"),
    ],
)
def test_what_cannot_be_a_sample_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    source = FolderSource(folder(tmp_path, *names))
    with pytest.raises(ArgumentError, match=f"(?s)^{tmp_path}.*({message})"):
        list(source.entries())


def test_a_partner_may_be_missing_where_only_some_are_required(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path, "a.png", "a.json", "b.png"), require=["png"])
    assert [sorted(sample) for sample in all_of(source).values()] == [["json", "png"], ["png"]]


def test_two_paths_with_one_key_are_both_named(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path / "files", "a/b.txt", "a-b.txt"))
    with (
        Journal(tmp_path / "listing") as journal,
        pytest.raises(ArgumentError, match=r"has the key 'a-b' twice: .*a-b\.txt and .*a/b\.txt.*rename one"),
    ):
        Listing(journal, source)


def test_a_folder_without_rights_is_named_and_not_passed_over(tmp_path: Path, unprivileged: None) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        folder(Path(home), "a.txt", "closed/b.txt")
        os.chmod(Path(home, "closed"), 0)
        try:
            with pytest.raises(StorageError, match=r"closed.* cannot be read .Permission denied"):
                list(FolderSource(Path(home)).entries())
        finally:
            os.chmod(Path(home, "closed"), 0o700)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"a\.txt does not exist"):
        list(FolderSource(tmp_path).entries())


@pytest.mark.parametrize("change", ["longer", "touched", "gone"])
def test_what_changed_since_it_was_listed_is_not_read(tmp_path: Path, change: str) -> None:
    source = FolderSource(folder(tmp_path, "a.txt", "a.json"))
    (entry,) = source.entries()
    if change == "longer":
        (tmp_path / "a.txt").write_text("longer than before")
    elif change == "touched":
        os.utime(tmp_path / "a.txt", ns=(1, 2**62))
    else:
        (tmp_path / "a.txt").unlink()
    with pytest.raises(StorageError, match=r"were changed while the build read them|does not exist"):
        source.read(entry)


# --- tars


def test_the_samples_of_tars_are_read_from_any_storage(storage: Storage) -> None:
    storage.write("b.tar", tar_bytes({"3.txt": b"three", "3.cls": b"3"}))
    storage.write("a/a.tar", tar_bytes({"x/": b"", "x/1.txt": b"one", "README": b"", "2.txt": b"2" * 9000}))
    storage.write("a/a.tar.idx", b"")
    source = pickle.loads(pickle.dumps(tars_at(storage))) if storage.url[:6] != "memory" else tars_at(storage)
    assert all_of(source) == {
        "x-1": {"txt": b"one"},
        "2": {"txt": b"2" * 9000},
        "3": {"txt": b"three", "cls": b"3"},
    }
    assert isinstance(source, Source)


def test_of_a_near_tar_only_headers_are_read_to_list_it_and_of_a_far_one_large_pieces() -> None:
    tar = tar_bytes({f"{number}.bin": bytes(1 << 17) for number in range(20)})
    near, far = WatchedStorage({"a.tar": tar}), FarStorage({"a.tar": tar})
    for home in (near, far):
        assert len(list(TarSource(home, ("a.tar",)).entries())) == 20
    assert sum(length for _, _, length in near.reads) < len(tar) / 10
    assert len(far.reads) == 1


def test_a_damaged_tar_is_named(tmp_path: Path) -> None:
    home = MemoryStorage("tars", {"a.tar": tar_bytes({"1.txt": b"one"})[:1024]})
    with pytest.raises(ShardError, match=r"memory://tars/a\.tar: the archive is cut"):
        list(TarSource(home, ("a.tar",)).entries())


def test_a_tar_that_was_replaced_since_it_was_listed_is_not_read() -> None:
    home = MemoryStorage("tars", {"a.tar": tar_bytes({"1.txt": b"one"})})
    source = TarSource(home, ("a.tar",))
    (entry,) = source.entries()
    home.write("a.tar", tar_bytes({"1.txt": b"two"}))
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        source.read(entry)
    assert TarSource(home, ("a.tar",)).identity != source.identity


# --- by name


def test_a_folder_is_of_tars_or_of_files_by_what_it_holds(tmp_path: Path) -> None:
    folder(tmp_path / "files", "a.png", "a.json")
    tars = LocalStorage(tmp_path / "tars")
    tars.write("manifest.json", b"{}")
    tars.write("train/easy/easy-000000.tar", tar_bytes({"1.txt": b"one"}))
    assert source_by_name(tmp_path / "files") == FolderSource(tmp_path / "files")
    assert isinstance(found := source_by_name(str(tmp_path / "tars")), TarSource)
    assert found.names == ("train/easy/easy-000000.tar",)
    one = source_by_name(tmp_path / "tars" / "train" / "easy" / "easy-000000.tar")
    assert isinstance(one, TarSource)
    assert list(all_of(one)) == ["1"]


def test_a_function_of_the_current_folder_is_called_with_what_follows_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_samples_here.py").write_text(
        "def some(argument='none'):\n    return [{'__key__': argument, 'cls': 1}]\n"
        "def wrong():\n    return 'text'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", os.getcwd())])
    assert source_by_name("my_samples_here:some") == [{"__key__": "none", "cls": 1}]
    assert source_by_name("my_samples_here:some:a/b:c") == [{"__key__": "a/b:c", "cls": 1}]
    with pytest.raises(ArgumentError, match="What my_samples_here:wrong returned is a str"):
        source_by_name("my_samples_here:wrong")
    source = Generated(3)
    assert source_by_name(source) is source


def test_no_tars_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"There are no tars at memory://empty-source"):
        source_by_name("memory://empty-source")


# --- spooled


def test_an_iterable_is_set_down_once_and_known_by_its_content(tmp_path: Path) -> None:
    def samples(last: int) -> Any:
        return ({"__key__": f"{number}", "json": told(number)} for number in range(last))

    first, other, again = (spool(samples(last), tmp_path) for last in (9, 8, 9))
    assert first.identity == again.identity
    assert list(first.entries()) == list(again.entries())
    assert other.identity != first.identity
    assert len(all_of(other)) == 8
    assert len(list(tmp_path.iterdir())) == 2, "something half-written was left"


def test_an_iterable_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def samples() -> Any:
        yield {"__key__": "a", "cls": 1}
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        spool(samples(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("text", "Sample 0 of the source: it must be a mapping, not a str"),
        ({"txt": "x"}, "Sample 0 of the source: the key None must be"),
        ({"__key__": "a", "json": {1}}, "Sample 0 of the source, sample 'a': Member 'json': a set cannot"),
        ({"__key__": "a", "PNG": b""}, "extension 'PNG' must be lower-case"),
        ({"__key__": "a"}, "sample 'a' has no members"),
    ],
)
def test_what_is_no_sample_is_refused_with_its_number(tmp_path: Path, sample: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        spool([sample], tmp_path)
