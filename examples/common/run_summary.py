"""Say in a few lines what trainings have left: checkpoints, sheets, a plot of the mixture, loss per bucket.

python run_summary.py checkpoints_catvton_curriculum [...] [--report training_report.html]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.html_report import write_report
from common.metrics_rows import Row, in_bucket_order, of_kind, read_rows
from common.mixture_plot import plot_training


def main() -> int:
    """Print the summary of every folder; return 1 if one of them holds no training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a trainer's --output_dir")
    parser.add_argument("--report", type=Path, help="write a page with all of it here: plots, tables, sheets")
    args = parser.parse_args()
    trained: list[Path] = []
    for folder in args.folders:
        metrics = folder / "metrics.jsonl"
        if metrics.is_file() and of_kind(read_rows(metrics), "train"):
            print("\n".join(summary_lines(folder)))
            trained.append(folder)
        else:
            print(f"{folder}: metrics.jsonl holds no training row, so nothing was trained here.")
    if args.report and trained:
        write_report(trained, args.report)
        print(f"Report, to open in a browser: {args.report}")
    return 0 if len(trained) == len(args.folders) else 1


def summary_lines(folder: Path) -> list[str]:
    """Plot a training into its folder, and return what there is to say about it."""
    rows = read_rows(folder / "metrics.jsonl")
    training, held_out = of_kind(rows, "train"), of_kind(rows, "validation")
    plot = folder / "mixture.png"
    plot_training(rows, plot, folder.name)
    sheets = sorted((folder / "samples").glob("step_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    lines = [
        f"{folder.name}: {training[-1]['step']} steps, {sum(training[-1]['samples_by_bucket'].values())} samples"
    ]
    lines.append(f"  checkpoint   {folder / 'latest_checkpoint.pt'}")
    lines += [f"  stage final  {path}" for path in sorted(folder.glob("checkpoint_stage*.pt"))]
    if sheets:
        lines.append(f"  sheets       {sheets[0]}  (before)")
        lines.append(f"               {sheets[-1]}  (after; {len(sheets)} in all)")
    lines.append(f"  plot         {plot}")
    lines += _losses(
        held_out if len(held_out) > 1 else training, "held-out" if len(held_out) > 1 else "training"
    )
    return lines


def _losses(rows: Sequence[Row], which: str) -> list[str]:
    """Compare, for each bucket, the first and the last row that speaks of it."""
    lines = [f"  {which} loss   before -> after"]
    for bucket in in_bucket_order(sorted({name for row in rows for name in row["loss_by_bucket"]})):
        losses = [row["loss_by_bucket"][bucket] for row in rows if bucket in row["loss_by_bucket"]]
        change = 100 * (losses[-1] / losses[0] - 1) if losses[0] else 0.0
        lines.append(f"    {bucket:<10} {losses[0]:.4f} -> {losses[-1]:.4f}  ({change:+.0f} %)")
    return lines


if __name__ == "__main__":
    sys.exit(main())
