"""Adding a split to the manifest of a data set: always the last thing written."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import ArgumentError
from .manifest import read_manifest
from .manifest_file import MANIFEST, Bucket, ManifestFile, check_name
from .storage import Storage


def make_room(home: Storage, split: str, *, overwrite: bool, source: str | None = None) -> None:
    """Check that a split may be written, before anything is.

    With ``overwrite`` a split that exists leaves the manifest first, so that a call that is
    interrupted leaves the split absent, never mixed from old and new shards. No tar is deleted:
    shards that the new split does not replace stay behind, unlisted.

    Raises:
        ArgumentError: The split exists and may not be replaced, or the manifest at ``home`` describes
            tars at another place.
    """
    check_name(split, "split")
    file = _current(home, source)
    if file.source != source:
        raise ArgumentError(
            f"{home.url} describes tars at {file.source or home.url}, so it cannot also describe "
            f"tars at {source or home.url}. Choose another destination."
        )
    if split not in file.splits:
        return
    if not overwrite:
        raise ArgumentError(
            f"{home.url} has a split {split!r} already. Pass overwrite=True to replace it, or name another split."
        )
    home.write(MANIFEST, file.without_split(split).to_bytes())


def publish(home: Storage, split: str, buckets: Mapping[str, Bucket], *, source: str | None = None) -> None:
    """Write the manifest with this split in it. Two calls at the same time would lose one split."""
    home.write(MANIFEST, _current(home, source).with_split(split, buckets).to_bytes())


def _current(home: Storage, source: str | None) -> ManifestFile:
    return read_manifest(home) if home.exists(MANIFEST) else ManifestFile(source=source)
