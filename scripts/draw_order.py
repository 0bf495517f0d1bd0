"""Draw the picture of the page of concepts from the real sampler: python scripts/draw_order.py > docs/assets/draws.svg"""

from __future__ import annotations

import curriculum_sampler as cs

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=2),
        cs.Stage("medium", {"easy": 30, "medium": 70}, steps=3),
        cs.Stage("hard", {"easy": 25, "medium": 25, "hard": 50}, steps=3),
    ]
)
SIZES = {"easy": 14, "medium": 8, "hard": 11}
BATCH = 10
FILL = {"easy": "#fde79c", "medium": "#e98b6d", "hard": "#4b2f7a"}
INK = {"easy": "#26324a", "medium": "#26324a", "hard": "#ffffff"}
CELL, LEFT, TOP, WIDTH = 28, 58, 40, 420
SAVED_AFTER = 4


def picture() -> str:
    """Return the global batches of eight steps as an SVG, a cell for each draw."""
    plan = SCHEDULE.plan(bucket_sizes=SIZES, batch_size=BATCH)
    sampler = cs.MixtureSampler(plan, seed=17)
    height = TOP + plan.total_steps * (CELL + 6) + 80
    drawn = dict.fromkeys(SIZES, 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-labelledby="title">',
        "<title id='title'>Eight global batches of ten draws: easy, then 3 easy and 7 medium, then 2 or 3 easy, "
        "2 or 3 medium and 5 hard</title>",
        "<style>text { font-family: Arial, 'Helvetica Neue', sans-serif; font-size: 12.5px; fill: #26324a; }"
        " .cell { font-size: 12px; text-anchor: middle; } .quiet { fill: #4a5568; } .saved { fill: #a63d17; }</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="24" class="quiet">step</text><text x="{LEFT}" y="24" class="quiet">ten draws a step, and the sample of each</text>',
    ]
    for step in range(plan.total_steps):
        y = TOP + step * (CELL + 6)
        at = plan.at(step=step)
        if at.stage_step == 0:
            lines.append(f'<text x="{LEFT + BATCH * CELL + 12}" y="{y + 18}">{at.stage}</text>')
        lines.append(f'<text x="20" y="{y + 18}" class="quiet">{step}</text>')
        for place, draw in enumerate(sampler.draws(step=step)):
            lines += _cell(LEFT + place * CELL, y, draw, drawn[draw.bucket] // SIZES[draw.bucket])
            drawn[draw.bucket] += 1
    y = TOP + SAVED_AFTER * (CELL + 6) - 3
    lines += [
        f'<path d="M8 {y}H{WIDTH - 8}" stroke="#a63d17" stroke-width="1.5" stroke-dasharray="4 3"/>',
        f'<text x="{WIDTH - 8}" y="{y + 14}" text-anchor="end" class="saved">{SAVED_AFTER * BATCH} draws</text>',
    ]
    y = TOP + plan.total_steps * (CELL + 6) + 22
    for place, (bucket, size) in enumerate(SIZES.items()):
        x = 8 + place * 142
        lines.append(f'<rect x="{x}" y="{y - 12}" width="14" height="14" rx="2" fill="{FILL[bucket]}"/>')
        lines.append(f'<text x="{x + 20}" y="{y}">{bucket}: {size} samples</text>')
    lines.append(
        f'<text x="8" y="{y + 24}" class="quiet">a dot: second pass over the bucket; two dots: third</text>'
    )
    lines.append(
        f'<text x="8" y="{y + 44}" class="saved">dashed: all that a state has to say is "40 draws"</text>'
    )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _cell(x: int, y: int, draw: cs.Draw, past: int) -> list[str]:
    ink = INK[draw.bucket]
    dots = [f'<circle cx="{x + 6 + 5 * dot}" cy="{y + 6}" r="1.6" fill="{ink}"/>' for dot in range(past)]
    return [
        f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL}" rx="3" fill="{FILL[draw.bucket]}"/>',
        f'<text class="cell" x="{x + CELL / 2 - 1}" y="{y + 20}" style="fill: {ink}">{draw.index}</text>',
        *dots,
    ]


if __name__ == "__main__":
    print(picture(), end="")
