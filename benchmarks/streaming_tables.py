"""The results of ``streaming.py`` as Markdown."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Cell = Callable[[Row], str]


def as_markdown(report: dict[str, Any]) -> str:
    """Return the tables of the parts that were run."""
    machine = report["machine"]
    passes = [row for part in ("local", "workers", "s3") for row in report.get(part, [])]
    versions = {name: version for row in passes for name, version in row.get("versions", {}).items()}
    told = (
        f"{machine['cpu']}, {machine['cores']} cores (load average {machine['load_before'][0]:.1f} before, "
        f"{machine['load_after'][0]:.1f} after), Python {machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    )
    parts = [told.removesuffix("; ") + "."]
    if report["small"]:
        parts.append("**A small run, to see that it works: its times mean nothing.**")
    if "local" in report:
        parts += ["**A folder, in process**", _passes(report["local"])]
        parts += ["**A folder, through 2 workers**", _passes(report["workers"])]
    if "s3" in report:
        parts += ["**S3**: nginx on the loopback", _passes(report["s3"], from_server=True)]
    if "resume" in report:
        parts += ["**Resume in the middle of a pass**, to the first batch", _resumes(report["resume"])]
        parts += ["**The same in larger manifests**", _large(report["resume_large"])]
    if "switch" in report:
        parts += [
            "**A stage switch on a throttled server**, wait for a batch in ms",
            _switches(report["switch"]),
        ]
    return "\n\n".join(parts)


def _passes(rows: list[Row], *, from_server: bool = False) -> str:
    ceiling = rows[0]
    columns: dict[str, Cell] = {
        "order": lambda row: row["order"],
        "CPU s/GB": lambda row: (
            f"{row['cpu_seconds_per_gb']:.2f}" + _times(row, ceiling, "cpu_seconds_per_gb")
        ),
        "MB/s": lambda row: f"{row['mb_per_second']:,.0f}",
        "first batch, ms": lambda row: _ms(row["first_seconds"]),
    }
    if from_server:
        columns |= {
            "with client": lambda row: _ms(row["first_seconds_with_client"]),
            "from process start": lambda row: _ms(row["first_seconds_from_start"]),
            "fetched": lambda row: f"{row['fetched_per_byte']:.3f}",
            "requests": lambda row: f"{row['requests']:,.0f}",
        }
    columns |= {"MB added": lambda row: f"{row['memory_mb']:,.0f}", "content": _content}
    return _table(rows, columns, with_workers=from_server)


def _resumes(rows: list[Row]) -> str:
    columns: dict[str, Cell] = {
        "ms": lambda row: _ms(row["resume_seconds"]),
        "continues exactly": _exact,
        "state, bytes": lambda row: f"{row['state_bytes']:,}" if "state_bytes" in row else "",
    }
    return _table(rows, columns, with_workers=True)


def _large(rows: list[Row]) -> str:
    columns: dict[str, Cell] = {
        "samples": lambda row: f"{row['samples']:,.0f}",
        "ms": lambda row: _ms(row["resume_seconds"]),
        "continues exactly": _exact,
        "manifest, s": lambda row: f"{row['manifest_seconds']:.2f}",
    }
    return _table(rows, columns, with_workers=True)


def _switches(rows: list[Row]) -> str:
    columns: dict[str, Cell] = {
        "step": lambda row: f"{row['step_ms']:.0f}",
        "first of the run": lambda row: f"{row['first_ms']:,.1f}",
        "median elsewhere": lambda row: f"{row['median_ms']:.1f}",
        "p99 elsewhere": lambda row: f"{row['p99_elsewhere_ms']:.1f}",
        "p99 of the 20 after the switch": lambda row: f"{row['p99_after_switch_ms']:.1f}",
    }
    return _table(rows, columns, with_workers=True)


def _table(rows: list[Row], columns: dict[str, Cell], *, with_workers: bool) -> str:
    """Return a table; a row that failed says why in its first cell."""
    lines = [["", *(["workers"] if with_workers else []), *columns]]
    for row in rows:
        cells = (
            [f"n/a ({_brief(row['refusal'])})", *[""] * (len(columns) - 1)]
            if "refusal" in row
            else [cell(row) for cell in columns.values()]
        )
        lines.append([row["reader"], *([str(row["workers"])] if with_workers else []), *cells])
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|---" * len(lines[0]) + "|", *written[1:]])


def _times(row: Row, ceiling: Row, what: str) -> str:
    return "" if row is ceiling or what not in ceiling else f" ({row[what] / ceiling[what]:.1f}x)"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


def _content(row: Row) -> str:
    found = row.get("content")
    if found is None:
        return ""
    if "refusal" in found:
        return f"n/a ({_brief(found['refusal'])})"
    wrong = [f"{count:,} {what}" for what, count in found.items() if count]
    return ", ".join(wrong) or "every sample once"


def _exact(row: Row) -> str:
    return {True: "yes", False: "**no**", None: ""}[row.get("is_exact")]


def _brief(refusal: str) -> str:
    text = refusal.replace("|", "/")
    return text if len(text) <= 160 else f"{text[:157]}..."
