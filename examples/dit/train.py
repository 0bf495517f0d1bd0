"""Train a try-on DiT through a curriculum, easy garments and poses first, in one process or stage by stage.

    python train.py --model_preset tiny --s3_prefixes s3://my-bucket/vton/v1 --resume_from_checkpoint latest
    python train.py --difficulty medium --num_epochs 250 --learning_rate 5e-5 --resume_from_checkpoint ...

Both ways give the same model. Read from top to bottom: model, loss, loop. What all trainers share (data, stages, files) is
in `common/training_run.py`; what stands there between the two lines `curriculum` is all that one of your own needs of it.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dit.flags import parse_arguments

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_arguments()

import torch
from common.arguments import as_text
from common.arithmetic import set_arithmetic
from common.folder_lock import only_run_in
from common.optimizer import make_adamw
from common.randomness import sample_generators, seed_globals
from common.ranks import Ranks, joined_ranks
from common.sharded import no_sync, shard, whole
from common.training_run import open_run
from common.training_state import TrainingState
from common.validation import on_device
from diffusers.training_utils import EMAModel
from dit.look import look
from dit.model import DiT, build_by_flags
from dit.objectives import OBJECTIVES, dit_loss
from dit.weights import init_from_official
from torch.nn.parallel import DistributedDataParallel

import curriculum_sampler as cs

TRAINER = "dit"


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
    def built() -> DiT:
        seed_globals(args.seed)
        return build_by_flags(args)

    run = open_run(TRAINER, args, ranks, vae=lambda: built().vae)  # checkpoint, curriculum, data set, loader
    if run is None:
        return 0
    model = built()
    if args.height % model.pixel_multiple or args.width % model.pixel_multiple:
        raise cs.ArgumentError(
            f"--height {args.height} --width {args.width}: this network needs multiples of {model.pixel_multiple}. Round them."
        )
    if args.init_from is not None and run.saved is None:
        init_from_official(model.network, args.init_from)
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    frozen_digest = model.frozen_digest()
    model.move(ranks.device, half)
    if args.gradient_checkpointing:
        model.network.enable_gradient_checkpointing()
    is_sharded = args.fsdp and ranks.world_size > 1
    if is_sharded:
        shard(model.network, model.network.blocks, half)
    weights = dict(model.trainable())
    parameters = list(weights.values())
    objective = OBJECTIVES[args.objective]()
    optimizer = make_adamw(args, parameters)
    # torch 2.13 cannot copy a list of sharded tensors in one call, which is what `foreach` does.
    ema = EMAModel(parameters, decay=args.ema_decay, foreach=not is_sharded) if args.use_ema else None
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=args.mixed_precision == "fp16")
    network: torch.nn.Module = model.network
    if args.torch_compile:
        network.compile()  # in place, so weights keep their names: no `_orig_mod.`
    without_sync: Callable[[], AbstractContextManager[None]] = nullcontext
    if is_sharded:
        without_sync = functools.partial(no_sync, model.network)
    elif ranks.world_size > 1:
        network = DistributedDataParallel(network)
        without_sync = network.no_sync

    def autocast() -> torch.autocast:
        return torch.autocast(ranks.device.type, half, enabled=half != torch.float32)

    def look_at_model(samples: Any, title: str, sheet: Path) -> dict[str, Any]:
        model.network.eval()
        with autocast():
            values = look(model, samples, args, title, sheet if ranks.is_writer else None)
        model.network.train()
        return values

    state = TrainingState(weights, model.base, frozen_digest, optimizer, ema, scaler, run.tally)
    config = {"preset": args.model_preset, "size": args.model_size, "objective": args.objective}
    run.begin(state, config, look_at_model)
    if args.fsdp and not is_sharded:
        run.log.say("--fsdp does nothing in one process: start several with torchrun.")
    with run:
        for batch in run.batches():
            generators = sample_generators(args.seed, "training", run.step, batch["sample_id"])
            with nullcontext() if run.is_update else without_sync():
                with autocast():
                    per_sample = dit_loss(
                        model,
                        objective,
                        on_device(batch, ranks.device),
                        generators,
                        network=network,
                        garment_dropout=args.cond_dropout_prob,
                        category_dropout=args.category_dropout_prob,
                        freq_loss_weight=args.freq_loss_weight,
                        snr_gamma=args.snr_gamma,
                    )
                scaler.scale(per_sample.mean() / args.gradient_accumulation_steps).backward()
            run.add(batch, per_sample)
            if not run.is_update:
                continue

            run.set_rate()
            scaler.unscale_(optimizer)
            norm = whole(torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)).item()
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
