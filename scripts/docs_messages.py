"""Hook of mkdocs: the page of errors lists every message of the modules that it names, read from the source."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

from mkdocs.structure.pages import Page

SOURCE = Path(__file__).parents[1] / "src" / "curriculum_sampler"
MARK = re.compile(r"^<!-- messages: ([\w ,/]+) -->$", re.MULTILINE)
# What these make an error of is text and advice; of others the text is all.
ADVISED = {"mismatch"}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put a list of messages where a page names modules."""
    return MARK.sub(lambda match: "\n".join(_entry(*told) for told in messages(match[1])), markdown)


def messages(modules: str) -> list[tuple[str, str]]:
    """Return (error, message) of all that the named modules raise in words; what varies is an ellipsis.

    >>> messages("extras")
    []
    """
    found: dict[tuple[str, str], None] = {}
    for module in re.split(r"[ ,]+", modules.strip()):
        for error, text in raised(SOURCE / f"{module}.py"):
            found[error, text] = None
    return list(found)


def raised(path: Path) -> list[tuple[str, str]]:
    """Return (error, message) of every raise in a file that has words of its own."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Raise)]
    calls = [node.exc for node in sorted(nodes, key=lambda node: node.lineno) if isinstance(node.exc, ast.Call)]
    told = [(ast.unparse(call.func).rpartition(".")[2], _words(call)) for call in calls]
    return [(error, text) for error, text in told if re.search(r"[a-z]{3}.* ", text)]


def _words(call: ast.Call) -> str:
    texts = [_text(argument) for argument in call.args]
    return ". ".join(texts[:2]) if ast.unparse(call.func) in ADVISED else (texts or [""])[0]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"


def _entry(error: str, text: str) -> str:
    shown = re.sub(r"…+", "…", " ".join(text.split()))
    return f"- <code>{html.escape(shown)}</code>"
