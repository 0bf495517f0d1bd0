"""Hook of mkdocs: the page of commands shows the help of each, as the terminal does."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from mkdocs.structure.pages import Page

MARK = "<!-- help of every command -->"
SOURCE = Path(__file__).parents[1] / "src"


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put a section for each command where a page asks for them."""
    return markdown.replace(MARK, _every_help()) if MARK in markdown else markdown


def _every_help() -> str:
    with patch.object(sys, "path", [str(SOURCE), *sys.path]):
        from curriculum_sampler.command_line import command_names, main  # noqa: PLC0415

        sections = []
        for command in command_names():
            printed = io.StringIO()
            with redirect_stdout(printed), patch.dict(os.environ, {"COLUMNS": "96", "NO_COLOR": "1"}):
                main([command, "--help"])
            sections.append(f"## {command}\n\n```text\n{printed.getvalue().rstrip()}\n```\n")
    return "\n".join(sections)
