"""Train VTON-GAN through a curriculum, easy garments and poses first, in one process or stage by stage.

    python train.py --model_preset tiny --s3_prefixes s3://my-bucket/vton/v1 --resume_from_checkpoint latest
    python train.py --difficulty medium --max_train_steps 20000 --learning_rate 1e-4 --resume_from_checkpoint ...

Both ways give the same model. Read from top to bottom: model, losses, loop. What all trainers share (data, stages, files) is
in `common/training_run.py`; what stands there between the two lines `curriculum` is all that one of your own needs of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vtongan.flags import dresser_weights, judge_weights, parse_arguments, remarks

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_arguments()

import torch
from common.arguments import as_text
from common.arithmetic import set_arithmetic
from common.folder_lock import only_run_in
from common.randomness import seed_globals
from common.ranks import Ranks, joined_ranks
from common.training_run import open_run
from common.training_state import TrainingState
from common.validation import on_device
from diffusers.training_utils import EMAModel
from torch.nn.parallel import DistributedDataParallel
from vtongan.look import look
from vtongan.losses import discriminator_terms, dresser_terms, weighted, weights_at
from vtongan.model import build_vtongan, make_optimizer

import curriculum_sampler as cs

TRAINER = "vtongan"


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
    run = open_run(TRAINER, args, ranks)  # checkpoint, curriculum, data set, loader
    if run is None:
        return 0
    seed_globals(args.seed)
    model = build_vtongan(
        args.model_preset, perceptual=args.perceptual, vgg_weights=args.vgg_weights, seed=args.seed
    )
    model.check_size(args.height, args.width)
    model.move(ranks.device)
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    painting = list(model.dresser.parameters())  # of warper and generator
    judging = list(model.discriminator.parameters())
    optimizer = make_optimizer(args, model)  # one for both: a step updates them together
    ema = EMAModel(painting, decay=args.ema_decay, foreach=True) if args.use_ema else None
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=args.mixed_precision == "fp16")
    dresser: torch.nn.Module = model.dresser
    judge: torch.nn.Module = model.discriminator
    if args.torch_compile:
        dresser.compile()  # in place, so weights keep their names: no `_orig_mod.`
    if ranks.world_size > 1:
        # A singular vector belongs to a weight, which is the same on every rank.
        dresser = DistributedDataParallel(dresser, broadcast_buffers=False)
        judge = DistributedDataParallel(judge, broadcast_buffers=False)

    def autocast() -> torch.autocast:
        return torch.autocast(ranks.device.type, half, enabled=half != torch.float32)

    def look_at_model(samples: Any, title: str, sheet: Path) -> dict[str, Any]:
        with autocast():
            return look(model, samples, args, title, sheet)

    state = TrainingState(model.state(), "nothing", "", optimizer, ema, scaler, run.tally, averaged=painting)
    run.begin(state, {"preset": args.model_preset}, look_at_model)
    for remark in remarks(args):
        run.log.say(remark)
    with run:
        for whole in run.batches():
            batch = on_device(whole, ranks.device)
            weights = weights_at(dresser_weights(args), run.step, args.d_warmup_steps)
            with ExitStack() as alone:
                if not run.is_update and ranks.world_size > 1:
                    alone.enter_context(dresser.no_sync())
                    alone.enter_context(judge.no_sync())
                with autocast():
                    worn = dresser(batch)
                    judged, seen = discriminator_terms(
                        judge, batch, worn.result.detach(), with_r1=args.r1_weight > 0
                    )
                    terms = dresser_terms(model.discriminator, model.perceptual, batch, worn)
                per_sample = weighted(terms, weights)
                loss = per_sample.mean() + weighted(judged, judge_weights(args)).mean()
                scaler.scale(loss / args.gradient_accumulation_steps).backward()
            run.add(whole, per_sample)
            if not run.is_update:
                continue

            run.set_rate()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(painting, args.max_grad_norm).item()
            judge_norm = torch.nn.utils.clip_grad_norm_(judging, args.max_grad_norm).item()
            run.refuse_not_a_number(max(norm, judge_norm))
            scaler.step(optimizer)
            scaler.update()
            model.after_update()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.step(painting)
            scores = {name: value.mean().item() for name, value in {**terms, **judged, **seen}.items()}
            if run.end_step(norm, terms=scores):
                break
    return run.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
