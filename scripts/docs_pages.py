"""Hook of mkdocs: files outside docs/ become pages without being copied, and links among all of them hold.

A page takes a file in with a line of its own, a link that ends in ``<!-- include -->``; followed by ``until: ## Heading``
in that comment, the part before this heading. A reader of the repository sees a link there, a reader of the site the text.
Every link stays written as it holds in the repository. On the site one to a taken-in file leads to its page; a picture from
outside docs/ is copied; any other file of the repository is named, since the site does not have it.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"^\[.*\]\(([^)]+)\)<!-- include(?:, until: (.*?))? -->$", re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)

_page_of: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Learn which page has which file, and add the pictures that lie outside docs/."""
    _page_of.clear()
    for file in files.documentation_pages():
        place = f"docs/{file.src_uri}"
        text = (ROOT / place).read_text("utf-8")
        for told, until in INCLUDE.findall(text):
            source = _join(place, told)
            if not until:
                _page_of[source] = file.src_uri
            _add_pictures(files, config, source, _part(source, until))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the files in, and turn every link into one that holds on the site."""
    here = page.file.src_uri

    def taken_in(match: re.Match[str]) -> str:
        source = _join(f"docs/{here}", match[1])
        return _relink(_part(source, match[2]), source, here)

    pieces = INCLUDE.split(markdown)
    # split yields text, path, heading, text, ...: the page's own links and those of what is taken in differ in base.
    texts = [_relink(text, f"docs/{here}", here) for text in pieces[::3]]
    put_in = [taken_in(match) for match in INCLUDE.finditer(markdown)]
    return "".join(own + other for own, other in zip(texts, [*put_in, ""], strict=True))


def _relink(text: str, source: str, here: str) -> str:
    """Rewrite the links of text written in ``source`` for the page ``here``; code blocks stay as they are."""

    def link(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        place = _join(source, path)
        if (ROOT / place / "README.md").is_file():
            place += "/README.md"
        if picture and not place.startswith("docs/"):
            page = f"pictures/{place}"
        elif place in _page_of:
            page = _page_of[place]
        elif place.startswith("docs/"):
            page = place.removeprefix("docs/")
        elif (ROOT / place).exists():
            return f"{label} (`{place}`)" if Path(place).name not in label else f"`{place}`"
        else:
            return match[0]
        return f"{picture}[{label}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{hash_sign}{anchor})"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


def _add_pictures(files: Files, config: MkDocsConfig, source: str, text: str) -> None:
    for picture, _, target in LINK.findall(text):
        place = _join(source, target)
        uri = f"pictures/{place}"
        if picture and "://" not in target and files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=os.fspath(ROOT / place)))


def _part(source: str, until: str | None) -> str:
    text = (ROOT / source).read_text("utf-8")
    if until and f"\n{until}\n" not in text:
        raise PluginError(
            f"{source} has no heading {until!r}, up to which a page takes it in. Correct the page."
        )
    return text.partition(f"\n{until}\n")[0] + "\n" if until else text


def _join(source: str, target: str) -> str:
    """The path from the repository's root of what a file there links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
