"""Extension of griffe: the examples in docstrings are code on the site, wherever in the docstring they stand."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?=.*\S).*)*(?:\n\n+\1>>> .*(?:\n(?=.*\S).*)*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences every ``>>>`` block, so that Markdown takes nothing in it for a link or a quotation."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None and "```" not in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
