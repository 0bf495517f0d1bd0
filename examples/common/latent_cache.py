"""Train on latents that were encoded once: the same samples in the same order, without the autoencoder at every step.

``cache_latents.py`` writes them. A cache of other data, another autoencoder or another size is refused, and so is one
that is not finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common.factors import CATEGORIES
from common.latents import pictures_of, vae_digest
from common.vton_data import TryOnArrays
from diffusers import AutoencoderKL

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError, StateMismatchError
from curriculum_sampler.storage import Storage, read_all

_FORMAT = 1
COPIES = {"plain": 0.0, "flipped": 1.0}


def cached_latents(
    dataset: cs.CurriculumDataset, place: str | Path, vae: AutoencoderKL, **options: Any
) -> cs.CurriculumDataset:
    """Return the same samples with latents for pictures: same buckets, same order, same curriculum, same mirroring.

    Each sample is a dict of ``image_latents``, ``masked_latents``, ``cloth_latents`` and perhaps ``pose_latents``
    (``float16[2, channels, rows, columns]``: mean and deviation), ``agnostic_mask`` at the size of the latents, and
    ``category``, ``bucket``, ``difficulty``, ``sample_id``. `posteriors` takes either kind of batch.

    Args:
        dataset: Of ``get_vton_dataset``, at the size that the model is to see.
        place: Where `write_latents` put them.
        vae: The autoencoder that the model decodes with.
        **options: Of ``s3://`` places, such as ``endpoint_url=``.

    Raises:
        ArgumentError: There is no finished cache, or it lacks mirrored copies and the data set mirrors.
        StateMismatchError: It was made of other data, with another autoencoder or at another size.
    """
    transform, split = sized_transform(dataset), dataset.manifest.split
    home = cs.open_storage(str(place), **options)
    again = "Run common/cache_latents.py with the same data, size and autoencoder first."
    if not home.exists(note_name(split)):
        raise ArgumentError(f"--cache_latents {place}: there are no latents of split {split!r} here. {again}")
    told = json.loads(read_all(home, note_name(split)))
    refuse_another(told, identity_of(dataset, vae), home.url)
    if transform.flip_probability > 0 and "flipped" not in told["copies"]:
        raise ArgumentError(
            f"--flip_probability {transform.flip_probability}, but {home.url} has no mirrored copies. Leave the flag out,"
            " or make a cache with cache_latents.py --with_flipped."
        )
    if not is_finished(home, split):
        raise ArgumentError(f"--cache_latents {place}: it is unfinished. {again}")
    return cs.CurriculumDataset(
        cs.Manifest.load(home, split=split),
        transform=LatentArrays(transform.flip_probability),
        schedule=dataset.schedule,
    )


@dataclass(frozen=True, slots=True)
class LatentArrays:
    """The transform from a cached sample to what `cached_latents` promises.

    Attributes:
        flip_probability: Share of the samples that are mirrored: the very ones that ``TryOnArrays`` would mirror.
    """

    flip_probability: float = 0.0

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        flip = self.flip_probability > 0 and rng.random() < self.flip_probability
        held, facts = dict(sample["flipped.safetensors" if flip else "plain.safetensors"]), sample["json"]
        return {
            "agnostic_mask": held.pop("agnostic_mask").astype(np.float32),
            **{f"{name}_latents": latents for name, latents in held.items()},
            "category": CATEGORIES.index(facts["category"]),
            "bucket": sample["__bucket__"],
            "difficulty": facts.get("difficulty", float("nan")),
            "sample_id": sample["__key__"],
        }


def note_name(split: str) -> str:
    """What the latents of a split are made of; written before the first shard."""
    return f"latents-{split}.json"


def is_finished(home: Storage, split: str) -> bool:
    """Whether every shard is written: the manifest comes last, and names the split."""
    try:
        cs.Manifest.load(home, split=split)
    except ArgumentError:
        return False
    return True


def sized_transform(dataset: cs.CurriculumDataset) -> TryOnArrays:
    transform = dataset.transform
    if not isinstance(transform, TryOnArrays) or transform.height is None:
        raise ArgumentError(
            "Latents need pictures of one size. Pass get_vton_dataset(..., height=, width=) of what the model is to see."
        )
    return transform


def identity_of(dataset: cs.CurriculumDataset, vae: AutoencoderKL) -> dict[str, Any]:
    """What latents depend on."""
    transform = sized_transform(dataset)
    return {
        "format": _FORMAT,
        "data": dict(sorted(dataset.manifest.bucket_fingerprints.items())),
        "vae": vae_digest(vae),
        "scaling_factor": vae.config.scaling_factor,
        "height": transform.height,
        "width": transform.width,
        "transform": _transform_digest(transform),
    }


def _transform_digest(transform: TryOnArrays) -> str:
    """Identify what is done to a sample before it is encoded, by doing it to a fixed one."""
    noise = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (37, 29, 3), dtype=np.uint8)
    members = {f"{name}.png": noise for name in ("image", "cloth", "pose")}
    members |= {f"{name}.png": noise[..., :1] for name in ("cloth_mask", "agnostic_mask")}
    sample = {"__key__": "", "__bucket__": "", **members}
    digest = hashlib.blake2b(digest_size=16)
    for probability in COPIES.values():
        arrays = replace(transform, flip_probability=probability)(sample, np.random.default_rng(0))
        for name, picture in pictures_of(arrays).items():
            digest.update(name.encode() + np.ascontiguousarray(picture, dtype=np.float32).tobytes())
    return digest.hexdigest()


def refuse_another(told: Mapping[str, Any], wanted: Mapping[str, Any], url: str) -> None:
    other = [name for name, value in wanted.items() if told.get(name) != value]
    if other:
        differences = "; ".join(f"{name} is {told.get(name)} there, {wanted[name]} here" for name in other)
        raise StateMismatchError(
            f"{url} holds latents of something else, encoded with {told.get('vae_name')}: {differences}."
            " Give the data, size and autoencoder that they were made with, or choose another place."
        )
