"""Measure a trained model on a test set, bucket by bucket and over all.

    python evaluate.py checkpoints_catvton_curriculum --s3_prefixes s3://my-bucket/vton/v1 --output numbers.json
    python evaluate.py checkpoints_dit_curriculum --data_root shards --fid_extractor inception-2015-12-05.pt --unpaired

SSIM, PSNR and masked L1 compare each person with the picture they were taken from. FID and KID compare sets of pictures, so
they say something about garments that nobody was photographed in as well: ``--unpaired`` gives every person the garment of
another one of the bucket. ``--repaint`` reports everything a second time with the original pixels outside the mask, which
are part of the truth: such numbers compare with their like only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.trained_flags import evaluate_arguments

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    evaluate_arguments()

import torch
from common.picture_distances import Extractor, fid, kid
from common.picture_likeness import Likeness, likenesses, lpips_likeness
from common.randomness import sample_generators
from common.trained import Trained, model_of, repainted
from common.unpaired import Pairing, dressed_in, unpaired
from common.whole_split import draws_by_bucket, split_of
from torch import Tensor

import curriculum_sampler as cs

_COLUMNS = {"ssim": ("SSIM", 1), "psnr": ("PSNR", 1), "masked_l1": ("masked L1", 1), "lpips": ("LPIPS", 1)}
_COLUMNS |= {"fid": ("FID", 1), "kid": ("KID x1000", 1000)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write the JSON."""
    args = evaluate_arguments(argv)
    if args.output is not None:  # not after hours of painting
        args.output.parent.mkdir(parents=True, exist_ok=True)
    lpips = lpips_likeness(args.device) if args.lpips else None
    trained = model_of(args)
    extractor = None
    if args.fid_extractor is not None:
        extractor = Extractor(args.fid_extractor, trained.device, args.fid_size)
    dataset = split_of(args, trained.height, trained.width)
    people = draws_by_bucket(dataset, args.limit)
    refuse_few_samples(sum(map(len, people.values())), extractor, force=args.force)
    told: dict[str, Any] = {
        "model": str(args.checkpoint or args.attention_weights),
        "trainer": trained.trainer,
        "step": trained.step,
        "weights": args.weights if args.checkpoint else "published",
        "split": args.split,
        "size": [trained.height, trained.width],
        "seed": args.seed,
        "sampling": dict(trained.sampling),
        "fid_extractor": str(args.fid_extractor) if args.fid_extractor else None,
    }
    pairings: dict[str, Pairing] = {"paired": {bucket: (draws, draws) for bucket, draws in people.items()}}
    if args.unpaired:
        pairings["unpaired"] = unpaired(dataset, people, args.seed)
    for name, pairing in pairings.items():
        told[name] = measure(trained, dataset, pairing, args, extractor, lpips, with_truth=name == "paired")
    print("\n".join(as_table(told)))
    if args.output is not None:
        args.output.write_text(json.dumps(told, indent=2) + "\n")


def refuse_few_samples(count: int, extractor: Extractor | None, *, force: bool) -> None:
    """Refuse a FID that says more about the number of samples than about the pictures.

    Raises:
        ArgumentError: There are fewer samples than twice the number of features, and nobody insists.
    """
    if extractor is None or force:
        return
    least = 2 * extractor.num_features
    if count < least:
        raise cs.ArgumentError(
            f"FID of {count:,} samples with {extractor.num_features:,} features would be mostly bias: it wants {least:,}"
            " samples. Pass --force to have it all the same, to compare with runs of as many samples; KID has no bias."
        )


def measure(
    trained: Trained,
    dataset: cs.CurriculumDataset,
    pairing: Pairing,
    args: argparse.Namespace,
    extractor: Extractor | None,
    lpips: Likeness | None,
    *,
    with_truth: bool,
) -> dict[str, Any]:
    """Dress all people and return the measures: ``as_painted`` and, where asked for, ``repainted``.

    Each has ``by_bucket`` and ``over_all``, in which every sample counts once: a bucket as much as it has samples.
    """
    ways = {"as_painted": False, **({"repainted": True} if args.repaint else {})}
    how = {"batch_size": args.batch_size, "num_workers": args.dataloader_num_workers}
    found: dict[str, dict[str, _Found]] = {way: {} for way in ways}
    for bucket, (people, garments) in pairing.items():
        for batch in dressed_in(dataset, people, garments, **how):
            generators = sample_generators(args.seed, "dress", 0, batch["sample_id"])
            result = trained.dress(batch, generators).cpu()
            real = extractor(batch["image"]) if extractor is not None else None
            for way, repaints in ways.items():
                seen = found[way].setdefault(bucket, _Found())
                painted = repainted(result, batch) if repaints else result
                if with_truth:
                    seen.add(likenesses(painted, batch["image"], batch["agnostic_mask"], lpips))
                if extractor is not None and real is not None:
                    seen.add({"real": real, "fake": extractor(painted)})
        print(f"{bucket}: {len(people):,} dressed", flush=True)
    least = 0 if args.force or extractor is None else 2 * extractor.num_features
    return {
        way: {
            "by_bucket": {bucket: seen.summary(least) for bucket, seen in buckets.items()},
            "over_all": _Found.of(buckets.values()).summary(least),
        }
        for way, buckets in found.items()
    }


class _Found:
    """Numbers and features of samples, by name."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    @classmethod
    def of(cls, several: Iterable[_Found]) -> _Found:
        """All of them as one."""
        together = cls()
        for one in several:
            for name, parts in one._parts.items():
                together._parts.setdefault(name, []).extend(parts)
        return together

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._parts.setdefault(name, []).append(value.detach().cpu())

    def summary(self, least_for_fid: int) -> dict[str, Any]:
        """Means, and distances where there are samples enough: None says that there are not."""
        all_of = {name: torch.cat(parts) for name, parts in self._parts.items()}
        told: dict[str, Any] = {"samples": len(next(iter(all_of.values()))) if all_of else 0}
        told |= {
            name: round(values.double().mean().item(), 6)
            for name, values in all_of.items()
            if name not in ("real", "fake")
        }
        if "fake" in all_of:
            real, fake = all_of["real"], all_of["fake"]
            enough = len(fake) >= 2
            told["fid"] = fid(real, fake) if enough and len(fake) >= least_for_fid else None
            told["kid"] = kid(real, fake) if enough else None
        return told


def as_table(told: Mapping[str, Any]) -> list[str]:
    """The numbers for a terminal."""
    sections = {
        f"{pairing}{', repainted' if way == 'repainted' else ''}": told[pairing][way]
        for pairing in ("paired", "unpaired")
        for way in ("as_painted", "repainted")
        if way in told.get(pairing, {})
    }
    names = [name for name in _COLUMNS if any(name in section["over_all"] for section in sections.values())]
    step = f"step {told['step']:,}, " if told["step"] is not None else ""
    lines = [f"{told['trainer']}, {step}{told['weights']} weights, split {told['split']}"]
    lines.append(f"{'':<24}{'samples':>9}" + "".join(f" {_COLUMNS[name][0]:>10}" for name in names))
    for title, section in sections.items():
        lines.append(title)
        for bucket, numbers in {**section["by_bucket"], "over all": section["over_all"]}.items():
            cells = "".join(f" {_cell(name, numbers.get(name)):>10}" for name in names)
            lines.append(f"  {bucket:<22}{numbers['samples']:>9,}{cells}")
    return lines


def _cell(name: str, value: float | None) -> str:
    return "-" if value is None else f"{value * _COLUMNS[name][1]:.4f}"


if __name__ == "__main__":
    try:
        main()
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
