"""Optional means invisible: what is not installed is missed only by those who use it, and named with its extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import curriculum_sampler
from curriculum_sampler.errors import MissingExtraError
from curriculum_sampler.extras import missing

ROOT = Path(__file__).parents[1]
SOURCE = Path(curriculum_sampler.__file__).parent
STATED: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
FOR_DEVELOPERS = {"docs", "test"}

# Where the name to import is not that of the package to install.
PACKAGES = {"PIL": "pillow", "botocore": "boto3", "urllib3": "boto3", "sklearn": "scikit-learn"}

# Without a word where they are absent: a progress bar.
SILENT = {("terminal.py", "tqdm")}


@cache
def packages_of(extra: str) -> frozenset[str]:
    """All packages that an extra brings, those of other extras in it included."""
    found: set[str] = set()
    for line in STATED[extra]:
        name = re.match(r"[\w.-]+", line)[0]
        if name == "curriculum-sampler":
            for other in re.findall(r"[\w-]+", line.partition("[")[2]):
                found |= packages_of(other)
        else:
            found.add(name)
    return frozenset(found)


def third_party(path: Path) -> dict[str, ast.AST]:
    """Packages that a file imports when it runs, beside numpy and the standard library, and where."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: dict[str, ast.AST] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        for name in names:
            top = name.partition(".")[0]
            if top and top not in {*sys.stdlib_module_names, "numpy", "curriculum_sampler"}:
                found.setdefault(top, node)
    return found


USES = [
    (path.relative_to(SOURCE).as_posix(), package)
    for path in sorted(SOURCE.rglob("*.py"))
    for package in third_party(path)
    if (path.name, package) not in SILENT
]


def extra_named(message: str) -> str:
    return re.search(r'pip install "curriculum-sampler\[([\w-]+)\]"', message)[1]


def test_there_are_optional_packages_to_look_at() -> None:
    assert {"torch", "boto3", "PIL", "pyarrow", "rich", "lightning"} <= {package for _, package in USES}
    assert {(path.name, package) for path in SOURCE.glob("*.py") for package in third_party(path)} >= SILENT


@pytest.mark.parametrize(("file", "package"), USES)
def test_an_optional_import_stands_in_a_try_that_names_an_extra_which_has_it(file: str, package: str) -> None:
    tree = ast.parse((SOURCE / file).read_text())
    node = third_party(SOURCE / file)[package]
    around = next(
        (
            block
            for block in ast.walk(tree)
            if isinstance(block, ast.Try)
            and any(_is_same(node, inner) for step in block.body for inner in ast.walk(step))
        ),
        None,
    )
    assert around is not None, f"{file} imports {package} outside of a try"
    (handler,) = around.handlers
    assert ast.unparse(handler.type) == "ImportError"
    raised = ast.unparse(handler.body[-1])
    named = re.search(r"missing\('[^']*', '([\w-]+)'\)", raised) or re.search(
        r"curriculum-sampler\[([\w-]+)\]", raised
    )
    assert named, f"{file}: {raised} names no extra"
    assert PACKAGES.get(package, package) in packages_of(named[1]), f"{file}: {package} is not in {named[1]}"


def _is_same(one: ast.AST, other: ast.AST) -> bool:
    return type(one) is type(other) and (one.lineno, one.col_offset) == (
        getattr(other, "lineno", 0),
        other.col_offset,
    )


def run(code: str, absent: list[str]) -> str:
    """Run ``code`` in a fresh interpreter that cannot import ``absent``."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


_IMPORT_EACH = """
import importlib
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, type(error).__name__, error, sep="|")
    else:
        print(name, "imported", "", sep="|")
"""

# A package inside another: who hides torch would see webdataset, torchdata and others fail first, and slowly.
AT_THE_TOP = sorted(
    {
        package
        for file, package in USES
        if any(isinstance(step, ast.Try) for step in ast.parse((SOURCE / file).read_text()).body)
    }
)


@pytest.mark.parametrize("package", AT_THE_TOP)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package: str) -> None:
    """Every module that imports it, really, where it is hidden."""
    files = [file for file, used in USES if used == package and file != "column.py"]
    names = [f"curriculum_sampler.{file.removesuffix('.py').replace('/', '.')}" for file in files]
    told = [line.split("|") for line in run(_IMPORT_EACH.format(names=names), [package]).splitlines()]
    assert [name for name, *_ in told] == names
    for name, kind, message in told:
        assert kind == "MissingExtraError", f"{name}: {kind} {message}"
        assert PACKAGES.get(package, package) in packages_of(extra_named(message)), message


def test_the_error_is_an_import_error_of_ours() -> None:
    error = missing("boto3", "s3")
    assert isinstance(error, MissingExtraError | ImportError)
    assert extra_named(str(error)) == "s3"


def test_s3_is_missed_where_a_url_is_opened() -> None:
    said = run("from curriculum_sampler.locations import open_storage; open_storage('s3://b/a')", ["boto3"])
    assert (
        'MissingExtraError: This needs boto3, which is not installed. Run: pip install "curriculum-sampler[s3]"'
        in said
    )


def test_parquet_is_missed_where_a_table_is_read() -> None:
    said = run(
        "from curriculum_sampler.column import read_table\nread_table('scores.parquet', '', 'score')",
        ["pyarrow"],
    )
    assert (
        'This needs pyarrow, which is not installed. Run: pip install "curriculum-sampler[parquet]"' in said
    )


def test_a_manifest_is_read_from_a_folder_with_numpy_alone() -> None:
    code = "import sys, curriculum_sampler.manifest, curriculum_sampler.draws\nprint('torch' in sys.modules, 'ok')"
    assert run(code, ["boto3", "botocore", "xxhash", "PIL", "safetensors"]) == "False ok\n"


def test_all_is_every_extra_for_users() -> None:
    inside = set(re.findall(r"[\w-]+", " ".join(line.partition("[")[2] for line in STATED["all"])))
    assert inside == STATED.keys() - {"all", *FOR_DEVELOPERS}
    assert all(line.startswith("curriculum-sampler[") for line in STATED["all"])


def test_every_optional_package_has_an_extra_and_a_least_version() -> None:
    assert {PACKAGES.get(package, package) for _, package in USES} <= packages_of("all")
    for extra, lines in STATED.items():
        for line in lines:
            assert line.startswith("curriculum-sampler[") or ">=" in line, f"{extra}: {line}"


def test_the_page_lists_the_extras_and_what_each_brings() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (.*?) ?\|$", page, re.MULTILINE))
    assert rows.keys() == STATED.keys() - FOR_DEVELOPERS
    for extra, brings in rows.items():
        if extra == "all":
            continue
        own = {re.match(r"[\w.-]+", line)[0] for line in STATED[extra]} - {"curriculum-sampler"}
        others = {
            other
            for line in STATED[extra]
            if line.startswith("curriculum-sampler[")
            for other in re.findall(r"[\w-]+", line.partition("[")[2])
        }
        assert set(re.findall(r"(?<!`)\b[\w-]+\b(?!`)", brings)) - {"and"} == own, extra
        assert set(re.findall(r"`([\w-]+)`", brings)) == others, extra


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_the_pages_name_no_extra_that_there_is_not(path: Path) -> None:
    for listed in re.findall(r"curriculum-sampler\[([\w,-]+)\]", path.read_text()):
        assert set(listed.split(",")) <= STATED.keys()
