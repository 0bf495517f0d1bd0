"""The docs site: it builds strictly, holds together by itself, names everything public, and works in a browser."""

from __future__ import annotations

import asyncio
import html
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import curriculum_sampler as cs
from curriculum_sampler import testing

from .browser import CHROMIUM, Tab, chromium

ROOT = Path(__file__).parents[1]
# What a browser loads by itself, as against what a reader may follow.
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """The links, the loaded files and the anchors of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attributes}
        self.anchors += [told[name] for name in ("id", "name") if name in told and tag != "meta"]
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if tag in LOADED and LOADED[tag] in told and told.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(told[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built strictly: a warning of mkdocs fails it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def outside(target: str) -> bool:
    return bool(urlsplit(target).scheme or urlsplit(target).netloc)


def test_every_link_and_every_anchor_within_the_site_exists(site, pages):
    broken = []
    for path, page in pages.items():
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if outside(target) or path.name == "404.html":
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            if not place.is_relative_to(site) or not place.is_file():
                broken.append(f"{path.name}: {target}")
            elif parts.fragment and place in pages and unquote(parts.fragment) not in pages[place].anchors:
                broken.append(f"{path.name}: no anchor {target}")
    assert broken == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        for target in page.loads:
            assert not outside(target) or target.startswith("data:"), f"{path.name} loads {target}"
    for sheet in site.rglob("*.css"):
        for target in re.findall(r"url\(([^)]*)\)|@import\s+([^;]+);", sheet.read_text("utf-8")):
            assert not any("//" in one and "data:" not in one for one in target), f"{sheet.name}: {target}"


def test_every_public_name_is_in_the_reference_once():
    told = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    listed = re.findall(r"^::: curriculum_sampler\.(\w+)$", told, re.MULTILINE)
    assert sorted(listed) == sorted(cs.__all__)
    checks = re.findall(r"^::: curriculum_sampler\.testing\.(\w+)$", told, re.MULTILINE)
    assert sorted([*checks, "MemoryStorage"]) == sorted(testing.__all__)


@pytest.mark.parametrize("package", [cs, testing], ids=lambda package: package.__name__)
def test_every_public_name_has_an_example_in_its_docstring(package):
    """Protocols say what others do: an example is that of what does it."""
    told = {name: inspect.getdoc(getattr(package, name)) or "" for name in package.__all__}
    assert [name for name, text in told.items() if ">>> " not in text] == []


def test_every_public_name_of_an_integration_is_in_the_reference(pages):
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    for path in (ROOT / "src" / "curriculum_sampler" / "integrations").glob("*.py"):
        for name in re.findall(r"^(?:class|def) ([A-Za-z]\w*)", path.read_text(), re.MULTILINE):
            assert f"curriculum_sampler.integrations.{path.stem}.{name}" in anchors


def test_the_reference_has_an_anchor_for_every_public_name(pages):
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    assert [name for name in cs.__all__ if f"curriculum_sampler.{name}" not in anchors] == []


def test_every_error_message_is_on_its_page(site):
    """Every sentence of an error in the source, up to where it varies, is there to be searched for."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from docs_messages import SOURCE, messages
    finally:
        sys.path.pop(0)
    page = html.unescape((site / "errors.html").read_text("utf-8"))
    told = [message for path in sorted(SOURCE.rglob("*.py")) for _, message in messages(path)]
    assert len(told) > 300
    assert [message for message in told if f"<code>{message}</code>" not in page] == []
    assert "Stage …: got ramp=…, but the first stage has no mixture to come from. Drop its ramp." in told
    assert "<!-- messages" not in page


def test_modules_that_the_page_of_errors_names_exist():
    for told in re.findall(r"<!-- messages: (.+?) -->", (ROOT / "docs" / "errors.md").read_text()):
        for module in re.split(", *", told.replace("the rest", "")):
            assert not module or (ROOT / "src" / "curriculum_sampler" / f"{module}.py").is_file(), module


def test_files_outside_docs_are_taken_in_whole(site):
    """README's first screen, changelog, contributing and the examples are pages, and say what their files say."""
    for page, file in {
        "index": "README.md",
        "changelog": "CHANGELOG.md",
        "contributing": "CONTRIBUTING.md",
        "trainers/catvton": "examples/catvton/README.md",
    }.items():
        shown = (site / f"{page}.html").read_text("utf-8")
        assert "&lt;!-- include" not in shown
        first_words = (ROOT / file).read_text().split("\n\n")[1].split("`")[0].split("**")[0].split("[")[0]
        assert " ".join(first_words.split())[:40] in " ".join(html.unescape(shown).split())
    assert len(list((site / "pictures").rglob("*.png"))) >= 1


WIDE = "document.documentElement.scrollWidth > window.innerWidth"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_work_in_a_browser_at_a_width(site, pages, width):
    """They load as plain files, without a complaint and without another host, and are no wider than the window."""
    as_files = [path for path in pages if path.name != "404.html"]  # which only a server shows

    async def walk(tab: Tab) -> None:
        for path in as_files:
            await tab.open(path.as_uri(), width)
            assert await tab.value("document.querySelector('h1').innerText.length > 2"), path
            assert not await tab.value(WIDE), f"{path.name} is wider than {width}"
            broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert await tab.value(broken) == [], path
        assert tab.told == []
        assert {urlsplit(url).scheme for url in tab.requests} <= {"file", "data", "blob", "about"}

    asyncio.run(in_chromium(walk))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 390])
def test_search_and_navigation_work(site, width):
    async def use(tab: Tab) -> None:
        await tab.open((site / "index.html").as_uri(), width)
        if width < 600:
            await tab.value("document.querySelector('label[for=__search]').click()")
        await tab.value("document.querySelector('input.md-search__input').focus()")
        await tab.call("Input.insertText", text="resume")
        found = await tab.until(
            "(l => l.length && l)([...document.querySelectorAll('a.md-search-result__link')].map(a => a.href))"
        )
        assert any("/resume.html" in link for link in found)
        await tab.open((site / "index.html").as_uri(), width)
        link = "[...document.querySelectorAll('.md-content a')].find(a => a.innerText == 'Five minutes')"
        await tab.follow(link)
        assert await tab.value("document.querySelector('h1').innerText.startsWith('Five minutes')")
        copies = "document.querySelectorAll('.md-code__button, .md-clipboard').length"
        assert await tab.until(copies) >= 5
        assert tab.told == []

    asyncio.run(in_chromium(use))


async def in_chromium(use) -> None:
    async with chromium() as tab:
        await use(tab)
