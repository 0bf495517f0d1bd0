"""Encode the pictures of a data set once, into shards with the same buckets and order; ``latent_cache.py`` reads them.

    python cache_latents.py --s3_prefixes s3://my-bucket/vton/v1 --height 512 --width 384 --with_flipped \\
        --pretrained_vae_name_or_path stabilityai/sd-vae-ft-mse --output vton-latents

What is kept is the posterior, mean and deviation in half precision, so a training still samples from it. A mirrored
picture has latents of its own, for an autoencoder does not commute with mirroring. Interrupted, the same command goes
on after the last whole shard; until all are written nobody can mistake it for a cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from common.factors import CATEGORIES
from common.folder_lock import only_run_in
from common.latent_cache import COPIES, identity_of, is_finished, note_name, refuse_another, sized_transform
from common.latents import pictures_of, posteriors
from common.vton_data import TryOnArrays, get_vton_dataset
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.index import INDEX_SUFFIX, ShardIndex
from curriculum_sampler.manifest import PlacedShard
from curriculum_sampler.manifest_file import Shard, index_digest
from curriculum_sampler.storage import Storage, read_all


def write_latents(
    dataset: cs.CurriculumDataset,
    place: str | Path,
    vae: AutoencoderKL,
    *,
    vae_name: str,
    with_flipped: bool = False,
    batch_size: int = 16,
    num_workers: int = 0,
    samples_per_shard: int = 256,
    **options: Any,
) -> cs.Manifest:
    """Encode every sample of a data set; a finished cache of the same is left as it is.

    Args:
        dataset: Of ``get_vton_dataset``, with height and width; whether it mirrors plays no part.
        place: Local folder or ``s3://`` place. One data set, one autoencoder, one size; a further split may join.
        vae: On the device and in the precision that it is to work in.
        vae_name: For messages: how the user calls it.
        with_flipped: Encode mirrored pictures too, for training with ``--flip_probability``.
        batch_size: Samples encoded together.
        num_workers: Processes that read and decode pictures.
        samples_per_shard: What an interruption may cost.
        **options: Of ``s3://`` places, such as ``endpoint_url=``.

    Raises:
        ArgumentError: The data set has no fixed size, or the autoencoder gave latents that are not finite.
        StateMismatchError: The place holds latents of something else, finished or not.
        ShardError: A sample cannot be read; here none stands in for another.
    """
    split, manifest = dataset.manifest.split, dataset.manifest
    copies = tuple(COPIES) if with_flipped else ("plain",)
    home = cs.open_storage(str(place), **options)
    identity = identity_of(dataset, vae) | {"copies": list(copies), "samples_per_shard": samples_per_shard}
    if home.exists(note_name(split)):
        refuse_another(json.loads(read_all(home, note_name(split))), identity, home.url)
        if is_finished(home, split):
            return cs.Manifest.load(home, split=split)
    home.write(note_name(split), json.dumps(identity | {"vae_name": vae_name}, indent=2).encode())
    transform = sized_transform(dataset)
    read = cs.CurriculumDataset(
        manifest,
        transform=_Copies({copy: replace(transform, flip_probability=COPIES[copy]) for copy in copies}),
        on_bad_sample="raise",
    )

    def samples(bucket: str, size: int) -> Iterator[dict[str, Any]]:
        for number, first in enumerate(range(0, size, samples_per_shard)):
            held = _shard_held(home, split, bucket, number)
            draws = [cs.Draw(bucket, index) for index in range(first, min(first + samples_per_shard, size))]
            if held is not None:
                yield from held
                continue
            batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
            for batch in DataLoader(read, batch_sampler=batches, num_workers=num_workers):
                yield from _encoded(vae, batch)
            print(f"{split}/{bucket}: {first + len(draws):,} of {size:,} encoded", flush=True)

    return cs.write_shards(
        home,
        {bucket: samples(bucket, size) for bucket, size in manifest.bucket_sizes.items()},
        split=split,
        samples_per_shard=samples_per_shard,
        max_shard_bytes=1 << 40,  # only the count may decide, so that a shard's number tells its samples
        difficulties=manifest.difficulties,
    )


@dataclass(frozen=True, slots=True)
class _Copies:
    """Several transforms of one sample, so that it is read and decoded once."""

    transforms: Mapping[str, TryOnArrays]

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
        return {copy: transform(sample, rng) for copy, transform in self.transforms.items()}


def _encoded(vae: AutoencoderKL, copies: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a collated batch as ``write_shards`` wants them."""
    members: dict[str, dict[str, Tensor]] = {}
    for copy, batch in copies.items():
        moved = {
            name: value.to(vae.device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        names = list(pictures_of(moved))
        stacked = torch.stack(posteriors(vae, moved, names), dim=2).half().cpu()
        mask = F.interpolate(batch["agnostic_mask"], size=stacked.shape[-2:], mode="nearest")
        members[copy] = dict(zip(names, stacked, strict=True)) | {"agnostic_mask": mask.to(torch.uint8)}
    facts = copies["plain"]
    for place, key in enumerate(facts["sample_id"]):
        held = {
            copy: {name: value[place].numpy() for name, value in parts.items()}
            for copy, parts in members.items()
        }
        if not all(np.isfinite(array).all() for parts in held.values() for array in parts.values()):
            raise ArgumentError(
                f"Sample {key!r} has latents that are not finite in half precision. Use --mixed_precision no or bf16, or"
                " another autoencoder."
            )
        told: dict[str, Any] = {"category": CATEGORIES[int(facts["category"][place])]}
        difficulty = float(facts["difficulty"][place])
        if np.isfinite(difficulty):
            told["difficulty"] = difficulty
        yield {"__key__": key, "json": told} | {f"{copy}.safetensors": parts for copy, parts in held.items()}


def _shard_held(home: Storage, split: str, bucket: str, number: int) -> Iterator[dict[str, Any]] | None:
    """The samples, as bytes and checked, of a shard that an interrupted call has finished; None where there is none."""
    name = f"{split}/{bucket}/{bucket}-{number:06}.tar"
    if not home.exists(name + INDEX_SUFFIX):  # written after its tar
        return None
    data = read_all(home, name + INDEX_SUFFIX)
    index = ShardIndex.from_bytes(data)
    placed = PlacedShard(Shard(name, len(index), index.tar_bytes, index_digest(data)), home, home)
    alone = cs.Manifest(split, {bucket: (placed,)}, {})
    return iter(cs.CurriculumDataset(alone, decode=None, on_bad_sample="raise").sequential())


def main(argv: Sequence[str] | None = None) -> None:
    """Encode a data set, unless that is done already."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--s3_prefixes", nargs="+", default=[], help="s3:// or local places with bucketed shards"
    )
    parser.add_argument("--data_root", help="one more place")
    parser.add_argument("--endpoint_url", help="S3 server other than AWS's")
    parser.add_argument("--split", default="train")
    parser.add_argument("--pretrained_vae_name_or_path", required=True)
    parser.add_argument("--output", required=True, help="folder or s3:// place")
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--with_flipped", action="store_true", help="mirrored pictures too; twice the size")
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    args = parser.parse_args(argv)
    options = {"endpoint_url": args.endpoint_url} if args.endpoint_url else {}
    dataset = get_vton_dataset(
        s3_prefixes=args.s3_prefixes,
        data_root=args.data_root,
        split=args.split,
        height=args.height,
        width=args.width,
        **options,
    )
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = AutoencoderKL.from_pretrained(args.pretrained_vae_name_or_path).requires_grad_(False).eval()
    torch.nn.Module.to(vae, device, half)
    is_folder = "://" not in args.output
    with only_run_in(Path(args.output)) if is_folder else nullcontext():
        manifest = write_latents(
            dataset,
            args.output,
            vae,
            vae_name=args.pretrained_vae_name_or_path,
            with_flipped=args.with_flipped,
            batch_size=args.batch_size,
            num_workers=args.dataloader_num_workers,
            **options,
        )
    sizes = ", ".join(f"{bucket} {size:,}" for bucket, size in manifest.bucket_sizes.items())
    print(f"{args.output} has the latents of split {args.split!r}: {sizes}.")


if __name__ == "__main__":
    main()
