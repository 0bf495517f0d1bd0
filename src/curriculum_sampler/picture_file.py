"""Into which file a picture goes: PNG, SVG, PDF, or a page of HTML that needs nothing else."""

from __future__ import annotations

import html
import io
import os
from pathlib import Path
from typing import Any

from .extras import missing
from .picture_kind import picture_kind

try:
    import matplotlib
except ImportError as error:
    raise missing("matplotlib", "plot") from error

_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font-family: sans-serif; color: #222; }}
svg {{ width: 100%; height: auto; }}
pre {{ overflow-x: auto; font-size: 0.85rem; line-height: 1.35; }}
</style>
</head>
<body>
<h1>{title}</h1>
{picture}
<pre>{notes}</pre>
</body>
</html>
"""


def save_figure(figure: Any, path: str | os.PathLike[str], *, title: str = "", notes: str = "") -> None:
    """Write a figure of matplotlib; equal figures give equal files. ``title`` and ``notes`` are for pages of HTML.

    Raises:
        ArgumentError: The name asks for no kind of picture that there is.
        OSError: The file cannot be written.
    """
    kind = picture_kind(path)
    drawn = io.BytesIO()
    # Names within an SVG would else be new ones each time.
    with matplotlib.rc_context({"svg.hashsalt": "curriculum-sampler"}):
        how = "svg" if kind == "html" else kind
        figure.savefig(drawn, format=how, dpi=150, metadata=_UNDATED.get(how))
    content = drawn.getvalue()
    if kind == "html":
        # Within HTML a picture has no XML head.
        picture = content[content.index(b"<svg") :].decode()
        content = _PAGE.format(title=html.escape(title), picture=picture, notes=html.escape(notes)).encode()
    Path(path).write_bytes(content)
