"""Before a long run: is all there that it needs? Everything that is missing is named at once.

    python readiness.py --curriculum_config catvton.toml --s3_prefixes s3://my-bucket/vton/v1 \\
        --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-inpainting
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import huggingface_hub
import torch

import curriculum_sampler as cs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.braces import expand_braces


def main() -> int:
    """Print what is missing; return 2 if anything is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curriculum_config", type=Path, required=True)
    parser.add_argument("--s3_prefixes", nargs="+", required=True)
    parser.add_argument("--pretrained_model_name_or_path")
    args = parser.parse_args()
    places = [place for prefix in args.s3_prefixes for place in expand_braces(prefix)]
    missing = [
        *lacking_data(places, cs.StageSchedule.load(args.curriculum_config)),
        *lacking_base(args.pretrained_model_name_or_path),
        *lacking_accelerator(),
    ]
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    return 2 if missing else 0


def lacking_data(places: Sequence[str], schedule: cs.StageSchedule) -> Iterator[str]:
    """Yield what keeps the curriculum from drawing its samples: an unreadable place, an absent bucket or split."""
    wanted = {bucket for stage in schedule.stages for bucket, weight in stage.mixture.items() if weight > 0}
    for split in ("train", "val"):
        try:
            found = set(cs.Manifest.load(list(places), split=split).bucket_sizes)
        except (cs.CurriculumError, OSError) as error:
            yield f"{split} data. {error}"
            continue
        if split == "train" and wanted - found:
            yield (
                f"bucket {', '.join(sorted(wanted - found))} of the curriculum; the data has {', '.join(sorted(found))}."
            )


def lacking_base(base: str | None) -> Iterator[str]:
    """Yield what keeps a pretrained base from being loaded."""
    if base is None:
        return
    if Path(base).exists():
        for part in ("unet", "vae", "scheduler"):
            if not (Path(base) / part).is_dir():
                yield f"{base}/{part}: a base in the diffusers layout has unet, vae and scheduler folders."
        return
    if isinstance(huggingface_hub.try_to_load_from_cache(base, "unet/config.json"), str):
        return
    try:
        huggingface_hub.HfApi().model_info(base, timeout=20)
    except (
        Exception
    ) as error:  # the client raises errors of several libraries, all of which mean the same here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        yield (
            f"pretrained base {base!r}: no such folder, not in the local cache, and the Hub did not answer ({reason}). "
            "Set PRETRAINED_MODEL to a folder with unet, vae and scheduler, or run where the Hub can be reached."
        )


def lacking_accelerator() -> Iterator[str]:
    """Yield that there is no GPU, if there is none: the full model would need months without."""
    if not torch.accelerator.is_available():
        yield "a GPU. The full model is not for CPUs; try --tiny."


if __name__ == "__main__":
    sys.exit(main())
