"""Members become samples by the WebDataset convention, or the reason why not is told."""

from __future__ import annotations

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import ShardError
from curriculum_sampler.grouping import group, split_name
from curriculum_sampler.tar import Member


def files(*names: str) -> list[Member]:
    return [Member(name, "file", 1024 * place, 1024 * place + 512, 5) for place, name in enumerate(names)]


@given(
    st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=30)
    | st.from_regex(r"[a./_Z-]{1,12}", fullmatch=True)
)
def test_names_are_split_as_webdataset_splits_them(name: str) -> None:
    base, extension = webdataset.tariterators.base_plus_ext(name)
    is_meta = name.startswith("__") and name.endswith("__")
    # Webdataset takes ``sub/.hidden`` for a sample called ``sub/``; to us it is hidden like any other.
    is_hidden = base is not None and base.endswith("/")
    expected = None if base is None or is_meta or is_hidden else (base, extension.lower())
    assert split_name(name) == expected


def test_a_sample_is_one_range_over_its_neighbouring_members() -> None:
    spans = list(group(files("a.png", "a.seg.png", "b.png", "sub/a.png")))
    assert [(span.key, span.start, span.stop) for span in spans] == [
        ("a", 0, 2048),
        ("b", 2048, 3072),
        ("sub/a", 3072, 4096),
    ]


def test_what_is_no_sample_is_passed_over_also_in_the_middle_of_one() -> None:
    found = files("README", ".hidden.png", "__meta__", "a.png", "LICENSE", "a.txt", "._a.png")
    found.insert(4, Member("folder.d/", "directory", 0, 0, 0))
    assert [span.key for span in group(found)] == ["a"]
    assert list(group([])) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (files("a.png", "b.png", "a.txt"), r"members of sample 'a' are not adjacent: 'a\.txt' at byte 2048"),
        (files("a.png", "a.PNG"), "sample 'a' has two members with extension 'png'"),
        ([Member("a.png", "hard link", 0, 512, 0)], r"'a\.png' is a hard link.*--hard-dereference"),
        ([Member("a.png", "sparse file", 0, 512, 0)], "is a sparse file"),
    ],
)
def test_a_sample_that_cannot_be_one_range_is_refused_by_name(members: list[Member], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        list(group(members))
