"""Train CatVTON through a curriculum, easy garments and poses first, in one process or stage by stage.

    python train.py --model_preset tiny --s3_prefixes s3://my-bucket/vton/v1 --resume_from_checkpoint latest
    python train.py --difficulty medium --max_train_steps 25000 --learning_rate 5e-6 --resume_from_checkpoint ...

Both ways give the same model. Read from top to bottom: model, loss, loop. What all trainers share (data, stages, files) is
in `common/training_run.py`; what stands there between the two lines `curriculum` is all that one of your own needs of it.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catvton.flags import parse_arguments

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_arguments()

import torch
from catvton.attention_weights import load_attention
from catvton.look import look
from catvton.losses import catvton_loss
from catvton.model import CatVTON, build_by_flags
from common.arguments import as_text
from common.arithmetic import set_arithmetic
from common.folder_lock import only_run_in
from common.optimizer import make_adamw
from common.randomness import sample_generators, seed_globals
from common.ranks import Ranks, joined_ranks
from common.training_run import open_run
from common.training_state import TrainingState
from common.validation import on_device
from diffusers.training_utils import EMAModel
from torch.nn.parallel import DistributedDataParallel

import curriculum_sampler as cs

TRAINER = "catvton"


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the process's exit code: 0, or 130 or 143 after a signal."""
    args = parse_arguments(argv)
    if args.print_config:
        print(as_text(args))
        return 0
    if args.cpu_threads is not None:
        torch.set_num_threads(args.cpu_threads)
    with joined_ranks() as ranks:
        writes = ranks.is_writer and not args.dry_run
        with only_run_in(args.output_dir) if writes else nullcontext():
            return train(args, ranks)


def train(args: argparse.Namespace, ranks: Ranks) -> int:
    """The whole training, as one of the processes that share it."""
    set_arithmetic(args)

    @functools.cache
    def built() -> CatVTON:
        seed_globals(args.seed)
        return build_by_flags(args)

    run = open_run(TRAINER, args, ranks, vae=lambda: built().vae)  # checkpoint, curriculum, data set, loader
    if run is None:
        return 0
    model = built()
    if args.height % model.vae_factor or args.width % model.vae_factor:
        raise cs.ArgumentError(
            f"--height {args.height} --width {args.width}: this autoencoder needs multiples of {model.vae_factor}. Round them."
        )
    if args.attention_weights is not None and run.saved is None:
        load_attention(model.unet, args.attention_weights)
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    frozen_digest = model.frozen_digest()
    model.move(ranks.device, half)
    if args.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    weights = dict(model.trainable())
    parameters = list(weights.values())
    optimizer = make_adamw(args, parameters)
    ema = EMAModel(parameters, decay=args.ema_decay, foreach=True) if args.use_ema else None
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=args.mixed_precision == "fp16")
    network: torch.nn.Module = model.unet
    if args.torch_compile:
        network = torch.compile(network)  # weights are saved from model.unet: no `_orig_mod.` in their names
    if ranks.world_size > 1:
        network = DistributedDataParallel(network)

    def autocast() -> torch.autocast:
        return torch.autocast(ranks.device.type, half, enabled=half != torch.float32)

    def look_at_model(samples: Any, title: str, sheet: Path) -> dict[str, Any]:
        model.unet.eval()
        with autocast():
            values = look(model, samples, args, title, sheet)
        model.unet.train()
        return values

    state = TrainingState(weights, model.base, frozen_digest, optimizer, ema, scaler, run.tally)
    run.begin(state, {"preset": args.model_preset, "unet": model.unet.config}, look_at_model)
    if args.model_preset == "tiny" and args.pretrained_vae_name_or_path is None:
        run.log.say(
            "The tiny autoencoder is random, so pictures show nothing. Train one with common/tiny_vae.py."
        )
    with run:
        for batch in run.batches():
            generators = sample_generators(args.seed, "training", run.step, batch["sample_id"])
            alone = nullcontext() if run.is_update or ranks.world_size == 1 else network.no_sync()
            with alone:
                with autocast():
                    per_sample = catvton_loss(
                        model,
                        on_device(batch, ranks.device),
                        generators,
                        unet=network,
                        dropout=args.cond_dropout_prob,
                        region=args.loss_region,
                        snr_gamma=args.snr_gamma,
                        dream=args.dream_detail_preservation if args.dream_training else None,
                    )
                scaler.scale(per_sample.mean() / args.gradient_accumulation_steps).backward()
            run.add(batch, per_sample)
            if not run.is_update:
                continue

            run.set_rate()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm).item()
            run.refuse_not_a_number(norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.step(parameters)
            if run.end_step(norm):
                break
    return run.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
