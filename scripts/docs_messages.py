"""Hook of mkdocs: the page of errors lists every message of the library, read from the source.

``<!-- messages: schedule, plan -->`` becomes the list of what these modules may say; ``<!-- messages: the rest -->`` that of
all modules which the page does not name. So the page is complete, whatever is added.
"""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

from mkdocs.structure.pages import Page

SOURCE = Path(__file__).parents[1] / "src" / "curriculum_sampler"
MARK = re.compile(r"^<!-- messages: ([\w ,/]+) -->$", re.MULTILINE)
# What makes an error, besides the classes whose name says so; of these text and advice are two arguments.
ADVISED = ("mismatch", "Failure")
WORDS = re.compile(r"[a-z]{3,}.* ")


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put a list of messages where a page names modules."""
    named = {module for told in MARK.findall(markdown) for module in _modules(told)}
    every = {str(path.relative_to(SOURCE).with_suffix("")) for path in SOURCE.rglob("*.py")}
    rest = sorted(every - named)

    def listed(match: re.Match[str]) -> str:
        found: dict[tuple[str, str], None] = {}
        for module in rest if match[1] == "the rest" else _modules(match[1]):
            found |= dict.fromkeys(messages(SOURCE / f"{module}.py"))
        # HTML, not Markdown, in which stars and underscores of a message would mean something.
        return '<ul class="messages">\n' + "\n".join(_entry(*told) for told in found) + "\n</ul>"

    return MARK.sub(listed, markdown)


def messages(path: Path) -> list[tuple[str, str]]:
    """Return (error, message) of every error that a file makes in words of its own; what varies is an ellipsis."""
    tree = ast.parse(path.read_text("utf-8"))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    found = []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: call.lineno):
        error = ast.unparse(call.func).rpartition(".")[2]
        if error in ADVISED or error.endswith("Error"):
            texts = [_text(argument, constants) for argument in call.args[: 1 + (error in ADVISED)]]
            message = re.sub(r"…[…\s]*…|…", "…", " ".join(". ".join(texts).split())).removesuffix(". …")
            if WORDS.search(message):
                found.append((error, message))
    return found


def _modules(told: str) -> list[str]:
    return [] if told == "the rest" else re.split(r", *", told)


def _text(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                _text(part, constants) if isinstance(part, ast.Constant) else "…" for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, constants) + _text(right, constants)
        case ast.IfExp(body=one, orelse=other):
            return f"{_text(one, constants)} / {_text(other, constants)}"
        case ast.Name(id=name) if name in constants:
            return _text(constants[name], {})
    return "…"


def _entry(error: str, message: str) -> str:
    kind = (
        ""
        if error in ("ArgumentError", "Failure")
        else f" {'StateMismatchError' if error == 'mismatch' else error}"
    )
    return f"<li><code>{html.escape(message)}</code>{kind}</li>"
