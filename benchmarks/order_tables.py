"""The results of ``order.py`` as Markdown."""

from typing import Any

OURS = "ours"


def as_markdown(report: dict[str, Any]) -> str:
    """Return all tables of a report."""
    speed, mixture, machine = report["speed"], report["mixture"], report["machine"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores shared with other work (load average "
        f"{machine['load_before'][0]:.1f} before, {machine['load_after'][0]:.1f} after), Python {machine['python']}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(_versions(speed).items()))
        + ".",
        "**Draws per CPU second**, batches of 256, three buckets at 25/25/50; in brackets how many times faster ours is.",
        _table(speed, _rate, with_order=True),
        "**Start-up to the first batch**, CPU ms: the first time in a process, then again.",
        _table(speed, lambda found, _: _twice(found, "start")),
        "**Resume to the next batch**, CPU ms, at draw 10^12 unless said: the first time in a process, then again.",
        _table(speed, lambda found, _: _resume(found)),
        "**Memory added**, MB: rise of the peak resident set from after the imports to the 201st batch.",
        _table(speed, lambda found, _: f"{found['memory_mb']:,.1f}"),
        "**Worst deviation from the exact count**, in draws: in a batch of 256 / in any 256 draws in a row / in a prefix "
        "of whole batches.",
        _deviations(mixture),
    ]
    return "\n\n".join(parts)


def _versions(speed: dict[str, Any]) -> dict[str, str]:
    return {
        package: version
        for by_size in speed.values()
        for found in by_size.values()
        for package, version in found["versions"].items()
    }


def _table(speed: dict[str, Any], cell: Any, *, with_order: bool = False) -> str:
    sizes = list(next(iter(speed.values())))
    rows = [["buckets of", *(["order"] if with_order else []), *map(_power, sizes)]]
    for name, by_size in speed.items():
        row = [name, *([by_size[sizes[0]]["order"]] if with_order else [])]
        for size, found in by_size.items():
            base = speed.get(OURS, {}).get(size, {})
            row.append(found["refusal"] if "refusal" in found else cell(found, base))
        rows.append(row)
    return _lines(rows)


def _lines(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _power(size: str) -> str:
    return f"10^{int(size.partition('e')[2])}"


def _rate(found: dict[str, Any], base: dict[str, Any]) -> str:
    rate = found["draws_per_second"]
    told = f"{rate / 1e6:.2f} M"
    if base and base is not found:
        told += f" ({base['draws_per_second'] / rate:,.1f}x)"
    return told


def _twice(found: dict[str, Any], what: str) -> str:
    told = _ms(found[f"{what}_ms"])
    return f"{told}, {_ms(found[f'{what}_again_ms'])}" if f"{what}_again_ms" in found else told


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _resume(found: dict[str, Any]) -> str:
    if "resume_ms" not in found:
        return "n/a (no state)"
    at = "" if found["resume_draw"] > 10**11 else f" at {found['resume_draw']:,}"
    exact = {True: ", exact", False: ", **not exact**", None: ""}[found.get("resume_is_exact")]
    return _twice(found, "resume") + at + exact


def _deviations(mixture: dict[str, Any]) -> str:
    labels = list(next(iter(mixture.values())))
    rows = [["weights", *labels]]
    for name, by_label in mixture.items():
        worst = [by_label[label] for label in labels]
        rows.append([name, *(f"{w['batch']:.2f} / {w['any_256']:.2f} / {w['prefix']:,.2f}" for w in worst)])
    return _lines(rows)
