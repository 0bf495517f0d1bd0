"""A picture of a data set: a row of samples per bucket, easiest first, so that a person sees whether difficulty is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .dataset import CurriculumDataset
from .draws import Draw
from .easiest_first import easiest_first
from .errors import ArgumentError, BadSampleError
from .extras import missing
from .manifest import Manifest
from .picture_member import member_picture, picture_member
from .sample_lookup import sample_keys
from .survey import spread

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError as error:
    raise missing("pillow", "data") from error

_MARGIN = 16
_TITLE = 40
_NAMES = 190  # width of the column with the names of the buckets
_CAPTION = 20
_GAP = 8
_PAPER, _INK, _FAINT, _EMPTY = "#ffffff", "#1a1a1a", "#6b6b6b", "#e8e8e8"


class _Shown(NamedTuple):
    picture: Image.Image | None
    caption: str


def contact_sheet(
    manifest: Manifest,
    *,
    samples_per_bucket: int = 8,
    height: int = 128,
    member: str | None = None,
    order: Sequence[str] | None = None,
    difficulties: Mapping[str, float] | None = None,
) -> Image.Image:
    """Return a picture with a row of samples for each bucket, the easiest bucket on top.

    With ``difficulties`` a row goes from the easiest to the hardest sample of its bucket, in even steps of rank, and
    each caption is the difficulty. Without, samples are taken in even steps of their index, and captions are keys.

    Args:
        manifest: The data.
        samples_per_bucket: Most samples in a row.
        height: Height of each sample in pixels.
        member: Extension of the image to show. Default: of the first sample's images one without a dot, else
            ``image.*``, else the first by name.
        order: Names of all buckets, easiest first; needed where the manifest states no difficulties.
        difficulties: Key -> difficulty, for every sample.

    Raises:
        ArgumentError: No such images, a number below 1, or a sample without difficulty.

    >>> import numpy as np
    >>> from curriculum_sampler import write_shards
    >>> pictures = [{"__key__": f"{n}", "png": np.full((16, 12, 3), 60 * n, np.uint8)} for n in range(3)]
    >>> sheet = contact_sheet(write_shards("memory://sheet", {"easy": pictures}), samples_per_bucket=2, height=32)
    >>> sheet.mode, sheet.width > 200
    ('RGB', True)
    """
    if samples_per_bucket < 1 or height < 16:
        raise ArgumentError(
            f"samples_per_bucket={samples_per_bucket} must be at least 1 and height={height} at least 16. Raise them."
        )
    names, is_known = easiest_first(manifest, order)
    dataset = CurriculumDataset(manifest, decode=None, on_bad_sample="raise")
    shown_member = member or picture_member(dataset, names[0])
    rows = {
        name: [
            _shown(dataset, name, index, shown_member, height, difficulties)
            for index in _chosen(manifest, name, samples_per_bucket, difficulties)
        ]
        for name in names
    }
    ways = "easiest bucket first" if is_known else "buckets by name: which is easier is not stated"
    steps = ", easiest sample left" if difficulties is not None else ""
    title = f"{manifest.split}: {shown_member}, {ways}{steps}"
    return _laid_out(rows, manifest, title, height)


def _chosen(
    manifest: Manifest, bucket: str, count: int, difficulties: Mapping[str, float] | None
) -> list[int]:
    if difficulties is None:
        return spread(manifest.bucket_sizes[bucket], count)
    scores = []
    for key in sample_keys(manifest, bucket):
        if key not in difficulties:
            raise ArgumentError(
                f"Sample {key!r} of bucket {bucket!r} has no difficulty. Give one for every sample."
            )
        scores.append(difficulties[key])
    by_score = sorted(range(len(scores)), key=scores.__getitem__)
    return [by_score[place] for place in spread(len(scores), count)]


def _shown(
    dataset: CurriculumDataset,
    bucket: str,
    index: int,
    member: str,
    height: int,
    difficulties: Mapping[str, float] | None,
) -> _Shown:
    try:
        sample = dataset[Draw(bucket, index)]
    except BadSampleError:
        return _Shown(None, f"{bucket}:{index} is damaged")
    key = sample["__key__"]
    caption = key if difficulties is None else f"{difficulties[key]:.3g}"
    try:
        picture = member_picture(sample, member).convert("RGBA")
    except BadSampleError:
        return _Shown(None, f"{key}: no image")
    width = max(1, round(picture.width * height / picture.height))
    # Small pictures keep their pixels, so that nothing is seen that is not there.
    way = Image.Resampling.NEAREST if picture.height * 2 <= height else Image.Resampling.LANCZOS
    return _Shown(picture.resize((min(width, 4 * height), height), way), caption)


def _laid_out(
    rows: Mapping[str, Sequence[_Shown]], manifest: Manifest, title: str, height: int
) -> Image.Image:
    widths = [[shown.picture.width if shown.picture else height for shown in row] for row in rows.values()]
    widest = max(sum(row) + _GAP * len(row) for row in widths)
    title_font, name_font, small = (ImageFont.load_default(size) for size in (18, 18, 12))
    row_height = height + _CAPTION + _GAP
    needed = _MARGIN + int(title_font.getlength(title))
    sheet = Image.new(
        "RGB",
        (max(_MARGIN + _NAMES + widest, needed) + _MARGIN, _TITLE + _MARGIN + row_height * len(rows) + _GAP),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=title_font)
    for number, (bucket, row) in enumerate(rows.items()):
        top = _TITLE + _MARGIN + number * row_height
        told = [f"{manifest.bucket_sizes[bucket]:,} samples"]
        if bucket in manifest.difficulties:
            low, high = manifest.difficulties[bucket]
            told.append(f"difficulty {low:.3g} to {high:.3g}")
        draw.text((_MARGIN, top), _fitted(bucket, name_font, _NAMES - _GAP), fill=_INK, font=name_font)
        for line, text in enumerate(told):
            draw.text((_MARGIN, top + 26 + 17 * line), text, fill=_FAINT, font=small)
        left = _MARGIN + _NAMES
        for shown, width in zip(row, widths[number], strict=True):
            if shown.picture is None:
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=_EMPTY)
            else:
                sheet.paste(shown.picture, (left, top), shown.picture)
            caption = _fitted(shown.caption, small, width)
            draw.text((left, top + height + 2), caption, fill=_FAINT, font=small)
            left += width + _GAP
    return sheet


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return the text, its end cut off where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
