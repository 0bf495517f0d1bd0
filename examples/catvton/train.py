"""Train CatVTON through a curriculum, easy garments and poses first, in one process or stage by stage.

    python train.py --model_preset tiny --s3_prefixes s3://my-bucket/vton/v1 --resume_from_checkpoint latest
    python train.py --difficulty medium --max_train_steps 25000 --learning_rate 5e-6 --resume_from_checkpoint ...

Both ways give the same model. Read from top to bottom: flags, data, model, loop. What stands between the two lines
`curriculum` is all that a trainer of your own needs of it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catvton.flags import parse_arguments

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_arguments()

import torch
from catvton.look import look
from catvton.losses import catvton_loss
from catvton.model import build_catvton
from common.arguments import as_text
from common.checkpoint import (
    LATEST,
    find_checkpoint,
    plain,
    read_checkpoint,
    save_checkpoint,
    stage_name,
    step_name,
)
from common.folder_lock import only_run_in
from common.guards import refuse_not_a_number
from common.interrupts import StopRequest
from common.logs import RunLog, stage_block
from common.optimizer import make_adamw
from common.randomness import sample_generators, seed_globals
from common.ranks import Ranks, joined_ranks
from common.rates import learning_rate, set_learning_rate
from common.stages import describe_plan, plan_of_checkpoint, schedule_of_run
from common.tally import Tally
from common.training_state import TrainingState
from common.validation import averaged_weights, held_out, on_device
from common.vton_data import get_vton_dataset
from common.wandb_runs import WandbRuns, run_name, wandb_is_wanted
from diffusers.training_utils import EMAModel
from torch.nn.parallel import DistributedDataParallel

import curriculum_sampler as cs

TRAINER = "catvton"
HELD_OUT_SAMPLES = 8  # per bucket


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
    path = find_checkpoint(args.resume_from_checkpoint, args.output_dir)
    saved = read_checkpoint(path, TRAINER) if path else None
    steps_before = saved["global_step"] if saved else 0
    if saved is None and find_checkpoint("latest", args.output_dir) and not args.dry_run:
        raise cs.ArgumentError(
            f"{args.output_dir} holds a training already, and a fresh start would write over it."
            " Pass --resume_from_checkpoint latest to go on, or another --output_dir."
        )

    # ---------------------------------------------------------------------------------------------- curriculum
    schedule = schedule_of_run(
        cs.StageSchedule.load(args.curriculum_config),
        difficulty=args.difficulty,
        total_steps=args.max_train_steps,
        learning_rate=args.learning_rate,
        past=plan_of_checkpoint(saved["loader_state"]) if saved else None,
        steps_done=steps_before,
    )
    if schedule is None:
        return already_done(args, steps_before)
    places = {"s3_prefixes": args.s3_prefixes, "data_root": args.data_root, "endpoint_url": args.endpoint_url}
    places |= {"height": args.height, "width": args.width}
    dataset = get_vton_dataset(**places, curriculum=schedule, flip_probability=args.flip_probability)
    loader = cs.CurriculumLoader(
        dataset,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps,
        seed=args.seed,
        num_workers=args.dataloader_num_workers,
        grad_accumulation=args.gradient_accumulation_steps,
        pin_memory=ranks.device.type == "cuda",
    )
    if saved:
        loader.load_state_dict(saved["loader_state"])
    # ---------------------------------------------------------------------------------------------- curriculum
    if args.dry_run:
        print(describe_plan(loader))
        return 0
    last_step = min(loader.plan.total_steps, args.max_train_steps or loader.plan.total_steps)
    if steps_before >= last_step:
        return already_done(args, steps_before)

    seed_globals(args.seed)
    model = build_catvton(
        args.model_preset,
        base=args.pretrained_model_name_or_path,
        vae=args.pretrained_vae_name_or_path,
        train_all=args.train_all,
        compatible=args.cross_attention == "compatible",
        seed=args.seed,
    )
    if args.height % model.vae_factor or args.width % model.vae_factor:
        raise cs.ArgumentError(
            f"--height {args.height} --width {args.width}: this autoencoder needs multiples of {model.vae_factor}. Round them."
        )
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    frozen_digest = model.frozen_digest()
    model.move(ranks.device, half)
    if args.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    torch.backends.cuda.matmul.allow_tf32 = args.allow_tf32
    weights = dict(model.trainable())
    parameters = list(weights.values())
    optimizer = make_adamw(args, parameters)
    ema = EMAModel(parameters, decay=args.ema_decay, foreach=True) if args.use_ema else None
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=args.mixed_precision == "fp16")
    tally = Tally(sorted(dataset.manifest.bucket_sizes), ranks)
    state = TrainingState(weights, model.base, frozen_digest, optimizer, ema, scaler, tally)
    if saved:
        state.load_state_dict(saved)
    network: torch.nn.Module = model.unet
    if args.torch_compile:
        network = torch.compile(network)  # weights are saved from model.unet: no `_orig_mod.` in their names
    if ranks.world_size > 1:
        network = DistributedDataParallel(network)

    log = RunLog(args.output_dir, steps_before, last_step, is_writer=ranks.is_writer)
    wandb_ids = saved["wandb"] if saved else {}
    if ranks.is_writer and wandb_is_wanted(args.report_to):
        group = args.wandb_group or args.output_dir.resolve().name
        log.wandb = WandbRuns(args.output_dir, args.wandb_project, group, wandb_ids, log.say)
    if args.resume_from_checkpoint == "latest" and saved is None:
        log.say(f"No checkpoint in {args.output_dir} yet: starting fresh.")
    if args.model_preset == "tiny" and args.pretrained_vae_name_or_path is None:
        log.say(
            "The tiny autoencoder is random, so pictures show nothing. Train one with common/tiny_vae.py."
        )
    samples = held_out_samples(args, places, log) if ranks.is_writer else None

    def rate_at(step: int) -> float:
        return learning_rate(loader.plan, step, args.lr_scheduler, args.lr_warmup_steps)

    def autocast() -> torch.autocast:
        return torch.autocast(ranks.device.type, half, enabled=half != torch.float32)

    def enter_stage(step: int, origin: str) -> str:
        """Open the stage of ``step``, at a live switch and after a load alike."""
        position, bounds = loader.plan.at(step), loader.plan.boundaries
        begin, end = bounds[position.stage_index : position.stage_index + 2]
        set_learning_rate(optimizer, rate_at(step))
        log.say(stage_block(position, begin, end, dataset.manifest.bucket_sizes, rate_at(step), origin))
        values = {
            "lr": rate_at(step),
            "target_mixture": position.mixture,
            "first_step": begin,
            "end_step": end,
        }
        log.row("stage", step, position.stage, **values)
        name = run_name(args.wandb_project, position.stage_index, position.stage)
        log.open_run(position.stage, (args.difficulty and args.wandb_run_name) or name, plain(vars(args)))
        return position.stage

    def validate(step: int, stage: str) -> None:
        if samples is None:
            return
        sheet = args.output_dir / "samples" / f"step_{step}.png"
        with averaged_weights(ema, parameters), autocast():
            model.unet.eval()
            values = look(model, samples, args, f"step {step:,}, stage {stage}", sheet)
            model.unet.train()
        log.row("validation", step, stage, **values)
        log.picture(step, "samples", sheet)
        losses = ", ".join(f"{bucket} {loss:.4f}" for bucket, loss in values["loss_by_bucket"].items())
        log.say(f"Step {step:,}: held-out loss {losses}; SSIM {values['ssim']:.3f}; {sheet}")

    def save(step: int, *, stage_ended: bool) -> None:
        if not ranks.is_writer:
            return
        position = loader.plan.at(step - 1)
        start, stage = loader.plan.boundaries[position.stage_index], position.stage
        epoch = step * loader.plan.batch_size // sum(dataset.manifest.bucket_sizes.values())
        name = stage_name(position.stage_index, stage, step) if stage_ended else step_name(epoch, step)
        content = {
            "trainer": TRAINER,
            "model_config": {"preset": args.model_preset, "unet": plain(model.unet.config)},
            **state.state_dict(),
            "global_step": step,
            "epoch": epoch,
            "stage": {"name": stage, "index": position.stage_index, "start_step": start},
            "schedule": loader.plan.schedule.to_dict(),
            "loader_state": loader.state_dict(),
            "args": plain(vars(args)),
            "wandb": dict(log.wandb.ids) if log.wandb else wandb_ids,
            "versions": {"torch": str(torch.__version__), "world_size": ranks.world_size},
        }
        save_checkpoint(args.output_dir, name, content, limit=args.checkpoints_total_limit)
        log.row("checkpoint", step, stage, file=name)

    stage = enter_stage(steps_before, f"from {path}" if path else "from nothing")
    if saved and saved["versions"]["world_size"] != ranks.world_size:
        log.say(f"Saved by {saved['versions']['world_size']} processes, going on with {ranks.world_size}.")
    if steps_before == 0:
        validate(0, stage)
    losses: list[torch.Tensor] = []
    keys: list[str] = []
    stop = StopRequest()
    clock = time.monotonic()
    with stop:
        for batch in loader:
            waited, step = time.monotonic() - clock, loader.step
            if loader.stage != stage:
                stage = enter_stage(step, "from the stage before")
            is_update = loader.steps_done > step  # the step's last micro-batch
            generators = sample_generators(args.seed, "training", step, batch["sample_id"])
            alone = nullcontext() if is_update or ranks.world_size == 1 else network.no_sync()
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
                    )
                scaler.scale(per_sample.mean() / args.gradient_accumulation_steps).backward()
            tally.add(batch["bucket"], per_sample, waited)
            losses.append(per_sample.detach().mean())
            keys += batch["sample_id"]
            clock = time.monotonic()
            if not is_update:
                continue

            set_learning_rate(optimizer, rate_at(step))
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm).item()
            loss = torch.stack(losses).mean().item()
            where = {"step": step, "stage": stage, "sample_ids": batch["sample_id"]}
            latest = args.output_dir / LATEST
            refuse_not_a_number(loss, norm, **where, latest=latest, is_scaled=scaler.is_enabled())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.step(parameters)
            losses.clear()

            done = step + 1
            log.progress(done, stage, loader.mixture, loss)
            stopping = ranks.any(stop.signal is not None)
            leaving = stopping or done == last_step or done - steps_before == args.max_steps_this_run
            stage_ended = done in loader.plan.boundaries
            saving = stage_ended or leaving or done % args.checkpointing_steps == 0
            if saving or done % args.logging_steps == 0:
                row = {"lr": optimizer.param_groups[0]["lr"], "target_mixture": loader.mixture, **tally.row()}
                row["grad_norm"] = norm if math.isfinite(norm) else None  # fp16 left this update out
                if ranks.device.type == "cuda":
                    row["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                if args.log_sample_ids:
                    row["sample_ids"] = sorted(key for some in ranks.gather(keys) for key in some)
                log.row("train", done, stage, **row)
                keys.clear()
            if stage_ended or done % args.validation_steps == 0:
                validate(done, stage)
            if saving:
                save(done, stage_ended=stage_ended)
            if leaving:
                break
            clock = time.monotonic()
    if stopping:
        log.say(f"{stop.name} received. Step {done:,} is saved; run the same command to go on.")
    elif done == loader.plan.total_steps:
        log.say(f"Finished: {done:,} steps. {args.output_dir / LATEST}")
    else:
        log.say(f"Left at step {done:,} of {loader.plan.total_steps:,}, as asked. Run again to go on.")
    log.close()
    return stop.exit_code if stopping else 0


def already_done(args: argparse.Namespace, steps_done: int) -> int:
    """A finished stage is no work and no error: scripts may simply be run again."""
    what = f"Stage {args.difficulty!r}" if args.difficulty else "The training"
    print(f"{what} is done: the checkpoint is at step {steps_done:,}. Nothing to do.")
    return 0


def held_out_samples(args: argparse.Namespace, places: dict[str, Any], log: RunLog) -> dict[str, Any] | None:
    """The fixed samples of the ``val`` split; None, said aloud, where the data has none."""
    try:
        dataset = get_vton_dataset(**places, split="val", curriculum=args.curriculum_config)
    except (cs.ArgumentError, cs.StorageError) as error:
        log.say(f"No validation: {error}")
        return None
    return held_out(dataset, max(HELD_OUT_SAMPLES, args.num_validation_samples))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
