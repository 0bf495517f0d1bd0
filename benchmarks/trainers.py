"""How fast the example trainers are on this machine, and what their whole curricula would take on it.

    python benchmarks/trainers.py                                  on a GPU: the full models, in bf16
    python benchmarks/trainers.py --model_preset tiny              on a CPU: a look at the machinery, in minutes
    python benchmarks/trainers.py --docs docs/benchmarks.md        write the table between its markers too

Each trainer runs its real ``train.py`` on rendered pictures that are read from shards while it trains. Pretrained weights
are stood in for by random ones of the same shapes, which are just as fast. Rates are means of the last rows of
``metrics.jsonl``, after compilation and warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import torch
from common.bucketed_shards import write_bucketed_shards
from common.metrics_rows import of_kind, read_rows

import curriculum_sampler as cs

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZES = {"full": (512, 384), "tiny": (64, 48)}
SAMPLES = {
    "train": {"easy": 32, "medium": 32, "hard": 32},
    "val": {"easy": 2, "medium": 2, "hard": 2},
}
# Hours that the specification expects on one A100.
EXPECTED_HOURS = {"catvton": 12.0, "dit": 40.0, "vtongan": 10.5}
# Training pairs of VITON-HD: an epoch of DiT draws as many.
EPOCH_SAMPLES = 11_647
# Half of them are warm; a step of the first two is eight passes.
STEPS = {"catvton": 6, "dit": 4, "vtongan": 40}
MARKERS = "<!-- trainers: begin -->", "<!-- trainers: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trainers", nargs="+", default=list(EXPECTED_HOURS), choices=list(EXPECTED_HOURS))
    parser.add_argument("--model_preset", choices=list(SIZES), default="full")
    parser.add_argument(
        "--steps", type=int, help="optimiser steps of each run (default: by trainer, as their batches differ)"
    )
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no", "yes"])
    parser.add_argument(
        "--work", type=Path, help="folder for pictures and random weights; a temporary one otherwise"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--docs", type=Path, help="page whose table is rewritten")
    parser.add_argument("more", nargs="*", help="after --: further flags of every train.py")
    args = parser.parse_args()
    if args.model_preset == "full" and not torch.cuda.is_available():
        parser.error(
            "the full models need a GPU, and this machine has none. Say --model_preset tiny to try the machinery."
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        height, width = SIZES[args.model_preset]
        shards = work / f"shards-{height}"
        if not (shards / "manifest.json").exists():
            write_bucketed_shards(
                str(shards), SAMPLES, seed=3, samples_per_shard=16, height=height, width=width
            )
        machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
        rows: list[dict[str, Any]] = []
        result = {"machine": machine, "torch": torch.__version__, "preset": args.model_preset, "rows": rows}
        for compiled in args.compile:
            for trainer in args.trainers:
                rows.append(measured(trainer, args, shards, work, compiled == "yes"))
                print(json.dumps(rows[-1]), flush=True)
                if args.json:  # at once: what was measured outlives a machine that is lent for minutes
                    args.json.write_text(json.dumps(result, indent=1) + "\n")
    page = table(result)
    print(page)
    if args.docs:
        text = args.docs.read_text()
        begin, end = MARKERS
        written, times = re.subn(
            f"({begin}\n).*({end})", lambda found: f"{found[1]}\n{page}\n\n{found[2]}", text, flags=re.S
        )
        if times != 1:
            parser.error(f"{args.docs} has no lines {begin} and {end} to write the table between.")
        args.docs.write_text(written)


def measured(
    trainer: str, args: argparse.Namespace, shards: Path, work: Path, compiled: bool
) -> dict[str, Any]:
    """Run a trainer for some steps, and return what it says of itself."""
    folder = Path(tempfile.mkdtemp(prefix=f"{trainer}-", dir=work))
    height, width = SIZES[args.model_preset]
    steps = args.steps or STEPS[trainer]
    command = [
        *(sys.executable, str(EXAMPLES / trainer / "train.py"), "--model_preset", args.model_preset),
        *("--data_root", str(shards), "--output_dir", str(folder), "--report_to", "jsonl"),
        *("--height", str(height), "--width", str(width), "--max_steps_this_run", str(steps)),
        *("--logging_steps", str(max(1, steps // 8)), "--validation_steps", "1000000"),
        *("--num_validation_samples", "1"),
        *(["--num_validation_inference_steps", "2"] if trainer != "vtongan" else []),
        *(["--torch_compile"] if compiled else []),
        *(stand_ins(trainer, work) if args.model_preset == "full" else []),
        *args.more,
    ]
    configuring = subprocess.Popen([*command, "--print_config"], stdout=subprocess.PIPE)
    begun = time.monotonic()
    with GPUWatch(folder / "metrics.jsonl") as watch:
        done = subprocess.run(command, capture_output=True, text=True)
    configured, _ = configuring.communicate()
    what = {"trainer": trainer, "compiled": compiled, "seconds": round(time.monotonic() - begun, 1)}
    if done.returncode:
        return what | {"failed": (done.stderr or done.stdout).strip().splitlines()[-1]}
    rows = of_kind(read_rows(folder / "metrics.jsonl"), "train")
    warm = rows[len(rows) // 2 :]
    configuration = json.loads(configured)
    batch = configuration["train_batch_size"] * configuration["gradient_accumulation_steps"]
    samples_per_second = statistics.mean(row["samples_per_second"] for row in warm)
    steps_per_second = samples_per_second / batch
    return what | {
        "batch": batch,
        "steps_per_second": steps_per_second,
        "samples_per_second": samples_per_second,
        "gpu_memory_gib": max((row.get("gpu_memory_gib", 0.0) for row in rows), default=0.0),
        "data_wait_share": statistics.mean(row["data_wait_share"] for row in warm),
        "gpu_busy_share": watch.busy_share(),
        "hours": whole_steps(trainer, batch) / steps_per_second / 3600,
    }


def whole_steps(trainer: str, batch: int) -> int:
    """Optimiser steps of the specification's whole curriculum."""
    stages = cs.StageSchedule.load(trainer).stages
    per_unit = {"steps": 1.0, "epochs": EPOCH_SAMPLES / batch}
    return sum(math.ceil(stage.length * per_unit[stage.unit]) for stage in stages)


def stand_ins(trainer: str, work: Path) -> list[str]:
    """Random weights in the place of pretrained ones, made once."""
    if trainer == "vtongan":
        return ["--perceptual", "random-vgg"]
    base = work / "random-stable-diffusion"
    if not (base / "scheduler").exists():
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

        attention = {"attention_head_dim": 8, "cross_attention_dim": 768, "in_channels": 9}
        with torch.device("cuda"):  # where random numbers are quick
            unet = UNet2DConditionModel(**attention)
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        unet.save_pretrained(base / "unet")
        vae.save_pretrained(base / "vae")
        del unet, vae
        torch.cuda.empty_cache()
        DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
            base / "scheduler"
        )
    if trainer == "dit":
        return ["--pretrained_vae_name_or_path", str(base / "vae")]
    return ["--pretrained_model_name_or_path", str(base)]


class GPUWatch:
    """Asks the driver five times a second how busy the GPU is, and notes how many rows ``metrics`` had by then.

    Knows nothing where there is no GPU.
    """

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._readings: list[tuple[int, float]] = []

    def __enter__(self) -> GPUWatch:
        self._process = None
        if torch.cuda.is_available():
            query = [
                "nvidia-smi",
                "--query-gpu=utilization.gpu",
                "--format=csv,noheader,nounits",
                "-lms",
                "200",
            ]
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            self._thread = threading.Thread(target=self._read, args=(self._process.stdout,))
            self._thread.start()
        return self

    def _read(self, said: IO[str]) -> None:
        for line in said:
            self._readings.append((self._rows(), float(line) / 100))

    def _rows(self) -> int:
        return len(of_kind(read_rows(self._metrics), "train")) if self._metrics.exists() else 0

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._thread.join()

    def busy_share(self) -> float | None:
        """While the later half of the rows was written: neither compilation nor the last checkpoint counts."""
        rows = self._rows()
        shares = [share for before, share in self._readings if rows // 2 <= before < rows]
        return statistics.mean(shares) if shares else None


def table(result: dict[str, Any]) -> str:
    """The result as a table in Markdown."""
    lines = [
        f"{result['machine']}, torch {result['torch']}, preset {result['preset']}.",
        "",
        "| trainer | torch.compile | global batch | memory, GiB | steps/s | samples/s | GPU busy, % | waiting for data, % | whole curriculum, h | specification, A100, h |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        start = [row["trainer"], "yes" if row["compiled"] else "no"]
        if "failed" in row:
            lines.append(f"| {' | '.join(start)} | failed: {row['failed']} |")
            continue
        busy = row["gpu_busy_share"]
        cells = [
            *start,
            str(row["batch"]),
            f"{row['gpu_memory_gib']:.1f}",
            f"{row['steps_per_second']:.2f}",
            f"{row['samples_per_second']:.1f}",
            "" if busy is None else f"{100 * busy:.0f}",
            f"{100 * row['data_wait_share']:.2f}",
            f"{row['hours']:.1f}" if result["preset"] == "full" else "",
            f"{EXPECTED_HOURS[row['trainer']]:g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
