"""Dress a person with a trained model, or every sample of a data set.

    python infer.py checkpoints_catvton_curriculum --person me.jpg --cloth shirt.jpg --mask mask.png --output dressed.png
    python infer.py checkpoints_dit_curriculum --s3_prefixes s3://my-bucket/vton/v1 --limit 8 --output sheet.png

A checkpoint of any trainer will do. The person is painted at the size that the model was trained at, and comes back at
its own. CatVTON's published weights do as well: ``--attention_weights FOLDER --pretrained_model_name_or_path BASE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.trained_flags import infer_arguments

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    infer_arguments()

import numpy as np
import torch
from common.factors import CATEGORIES
from common.randomness import sample_generators
from common.trained import Trained, model_of, repainted
from common.validation import save_sheet
from common.vton_data import TryOnArrays
from common.whole_split import draws_by_bucket, read_batches, split_of
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

import curriculum_sampler as cs


def main(argv: Sequence[str] | None = None) -> None:
    """Write what was asked for."""
    args = infer_arguments(argv)
    one = args.person is not None
    pictures = read_pictures(args) if one else {}  # mistakes in paths are told before a model is loaded
    trained = model_of(args)
    if one:
        dressed = dress_one(trained, pictures, args)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        dressed.save(args.output)
        print(f"{args.output}: {dressed.width} x {dressed.height}")
    else:
        print(dress_many(trained, args))


def noise_of(args: argparse.Namespace, keys: Sequence[str]) -> list[torch.Generator]:
    """A generator for each picture: the same seed and key give the same picture, whatever else is in the batch."""
    return sample_generators(args.seed, "dress", 0, keys)


def read_pictures(args: argparse.Namespace) -> dict[str, Image.Image]:
    """Read what the flags of one picture name, colours as RGB and masks as grey.

    Raises:
        ArgumentError: A file is missing or no picture, or will be none; a mask does not fit the person, or is empty.
    """
    modes = {"person": "RGB", "cloth": "RGB", "mask": "L", "cloth_mask": "L", "pose": "RGB"}
    if args.output.suffix.lower() not in Image.registered_extensions():
        raise cs.ArgumentError(
            f"--output {args.output}: a picture is to be written, and its name does not say of which kind. Call it"
            " dressed.png, say."
        )
    pictures = {}
    for name, mode in modes.items():
        path = getattr(args, name)
        if path is None:
            continue
        try:
            with Image.open(path) as file:
                pictures[name] = file.convert(mode)
        except OSError as error:
            raise cs.ArgumentError(f"--{name} {path}: {error}. Give a picture.") from error
    for name, of in (("mask", "person"), ("pose", "person"), ("cloth_mask", "cloth")):
        if name in pictures and pictures[name].size != pictures[of].size:
            raise cs.ArgumentError(
                f"--{name} {getattr(args, name)} has {_size(pictures[name])} pixels and --{of} {_size(pictures[of])}."
                " Give one of the same size."
            )
    for name in ("mask", "cloth_mask"):
        if name in pictures and np.asarray(pictures[name]).max() < 128:
            raise cs.ArgumentError(
                f"--{name} {getattr(args, name)} is black all over: white marks the"
                f" {'part to paint' if name == 'mask' else 'garment'}. Give another."
            )
    return pictures


def dress_one(trained: Trained, pictures: Mapping[str, Image.Image], args: argparse.Namespace) -> Image.Image:
    """Return the dressed person at its own size.

    Raises:
        ArgumentError: The model looks at a picture that was not given.
    """
    missing = [name for name in trained.needs if name not in pictures]
    if missing:
        raise cs.ArgumentError(
            f"A {trained.trainer} model looks at {' and '.join(trained.needs)} too. Pass --{missing[0]}."
        )
    person, mask = pictures["person"], pictures["mask"]
    members = {
        "image": person,
        "cloth": pictures["cloth"],
        "agnostic_mask": mask,
        # One that nobody looks at, where none was given.
        "cloth_mask": pictures.get("cloth_mask", Image.new("L", pictures["cloth"].size, 255)),
        **{name: pictures[name] for name in ("pose",) if name in pictures},
    }
    sample: dict[str, Any] = {"__key__": "picture", "__bucket__": "picture"}
    sample |= {f"{name}.png": _pixels(picture) for name, picture in members.items()}
    # The very transform of the training; its generator is for mirroring, which is off.
    arrays = TryOnArrays(trained.height, trained.width)(sample, np.random.default_rng(0))
    arrays["category"] = CATEGORIES.index(args.category) if args.category else len(CATEGORIES)
    dressed = trained.dress(default_collate([arrays]), noise_of(args, ["picture"]))
    result = as_picture(dressed[0]).resize(person.size, Image.Resampling.LANCZOS)
    if args.repaint:
        result = Image.composite(result, person, mask.point(lambda value: 255 * (value >= 128)))
    return result


def dress_many(trained: Trained, args: argparse.Namespace) -> str:
    """Dress a data set into a folder, a picture per sample, or into one sheet; return a line that says so.

    Pictures of a data set are of the model's size.
    """
    if args.output.suffix.lower() == ".png":
        columns: dict[str, list[Tensor]] = {}
        labels: list[str] = []
        for batch, result in dressed_batches(trained, args):
            shown = {"garment": batch["cloth"], "masked": batch["agnostic"], "result": result}
            for name, pictures in {**shown, "truth": batch["image"]}.items():
                columns.setdefault(name, []).append(pictures)
            labels += batch["bucket"]
        title = f"{trained.trainer}, step {trained.step:,}" if trained.step is not None else trained.trainer
        save_sheet(args.output, {name: torch.cat(parts) for name, parts in columns.items()}, labels, title)
        return f"{args.output}: {len(labels)} samples"
    count = 0
    for batch, result in dressed_batches(trained, args):
        for bucket, key, picture in zip(batch["bucket"], batch["sample_id"], result, strict=True):
            path = args.output / bucket / f"{key.replace('/', '_')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            as_picture(picture).save(path)
            count += 1
    return f"{args.output}: {count} pictures, in a folder for each bucket"


def dressed_batches(trained: Trained, args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Yield the data set's batches, and what the model makes of them."""
    dataset = split_of(args, trained.height, trained.width)
    draws = [draw for some in draws_by_bucket(dataset, args.limit).values() for draw in some]
    batches = read_batches(
        dataset, draws, batch_size=args.batch_size, num_workers=args.dataloader_num_workers
    )
    for batch in batches:
        result = trained.dress(batch, noise_of(args, batch["sample_id"])).cpu()
        yield batch, repainted(result, batch) if args.repaint else result


def as_picture(pixels: Tensor) -> Image.Image:
    """A picture of ``[3, height, width]`` in [-1, 1]."""
    levels = ((pixels.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"


if __name__ == "__main__":
    try:
        main()
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
