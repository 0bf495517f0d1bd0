"""Whether a data set can be read: its manifest, and one sample."""

from __future__ import annotations

import time
from typing import Any

import curriculum_sampler as cs

from ..locations import StorageOptions
from ..terminal import counted, readable_bytes
from . import Finding, sentence

_DEADLINE_SECONDS = 20.0


def look_at_data(location: str, split: str, options: StorageOptions) -> Finding:
    """Load a manifest and read the first sample of its first bucket, checksum included."""
    told: dict[str, Any] = dict.fromkeys(("url", "fingerprint", "samples", "buckets", "sample", "seconds"))
    rows: list[tuple[str, str]] = []
    faults = []
    try:
        storage = cs.open_storage(location, **(options | {"deadline_seconds": _DEADLINE_SECONDS}))
        told["url"] = storage.url
        rows.append(("data set", storage.url))
        manifest = cs.Manifest.load(storage, split=split)
        told |= {
            "fingerprint": manifest.fingerprint,
            "samples": len(manifest),
            "buckets": manifest.bucket_sizes,
        }
        size = f"{counted(len(manifest), 'sample')} in {counted(len(manifest.buckets), 'bucket')}"
        rows.append(
            (split, f"{size}, {readable_bytes(manifest.num_bytes)}, fingerprint {manifest.fingerprint}")
        )
        bucket = next(iter(manifest.buckets))
        began = time.monotonic()
        sample = cs.CurriculumDataset(manifest, decode=None, on_bad_sample="raise")[cs.Draw(bucket, 0)]
        told["seconds"] = round(time.monotonic() - began, 3)
        told["sample"] = sample["__key__"]
        members = ", ".join(name for name in sample if not name.startswith("__"))
        rows.append(
            (
                f"{bucket}:0",
                f"{sample['__key__']!r} ({members}) read and verified, in {told['seconds'] * 1000:.0f} ms",
            )
        )
        rows.append(("the rest", "not read: 'verify' reads all of it, 'verify --fast' compares sizes"))
    except Exception as error:
        faults.append(sentence(error))
    return Finding("data", rows, told, faults)
