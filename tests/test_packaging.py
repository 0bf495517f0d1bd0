"""Wheel and sdist hold what they should, and work where nothing else is installed.

They are built by hatchling as it is installed here (``python -m build --no-isolation``), so that no network is needed.
"""

from __future__ import annotations

import email.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.version import Version

import curriculum_sampler as cs

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"curriculum_sampler-{PROJECT['version']}"


def build(source: Path, out: Path, kind: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source],
        check=True,
        capture_output=True,
        text=True,
    )
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"{STEM}-py3-none-any.whl"
    names = set(contents(wheel))
    package = {name for name in names if name.startswith("curriculum_sampler/")}
    source = ROOT / "src"
    kept = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and not re.search(r"/(__pycache__|\.\w+)/", path.as_posix())
    }
    assert package == kept
    assert {Path(name).suffix for name in package} == {".py", ".toml", ".typed"}
    assert "curriculum_sampler/py.typed" in package
    assert {f"curriculum_sampler/presets/{name}.toml" for name in ("catvton", "dit", "vtongan")} <= package
    assert names - package == {
        f"{STEM}.dist-info/{name}"
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }


def test_the_metadata_are_in_order(wheel: Path) -> None:
    text = contents(wheel)[f"{STEM}.dist-info/METADATA"]
    told = Metadata.from_email(text, validate=True)
    assert (told.name, str(told.version)) == ("curriculum-sampler", PROJECT["version"])
    assert told.license_expression == "Apache-2.0"
    assert str(told.requires_python) == ">=3.11"
    assert [str(need) for need in told.requires_dist if need.marker is None] == ["numpy>=1.26"]
    assert set(told.provides_extra) == PROJECT["optional-dependencies"].keys()
    assert told.description_content_type == "text/markdown"
    message = email.parser.BytesParser().parsebytes(text)
    assert message.get_payload().startswith("# curriculum-sampler")


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    assert sdist.name == f"{STEM}.tar.gz"
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    assert contents(build(tmp_path / STEM, tmp_path / "out", "wheel")) == contents(wheel)


def test_the_sdist_holds_what_its_tests_and_docs_need(sdist: Path) -> None:
    with tarfile.open(sdist) as opened:
        names = {name.removeprefix(f"{STEM}/") for name in opened.getnames()}
    for needed in (
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt", "mkdocs.yml"),
        *("tests/test_packaging.py", "tests/golden/order.json", "scripts/test.sh", "docs/install.md"),
        *("examples/train_all.sh", "benchmarks/order.py", "src/curriculum_sampler/py.typed"),
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))]


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version)
    assert cs.__version__ == version
    assert (ROOT / "CHANGELOG.md").read_text().count(f"\n## {version}") == 1
    for path in (ROOT / "src").rglob("*.py"):
        assert version not in path.read_text(), f"{path.name} repeats the version"


def test_the_changelog_keeps_its_layout() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", text, re.MULTILINE)
    assert len(versions) == len(re.findall(r"^## ", text, re.MULTILINE))
    numbers = [Version(version) for version, _ in versions]
    assert numbers == sorted(numbers, reverse=True)
    headings = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Order changed"}


def test_the_pythons_that_are_claimed_are_those_that_the_page_names() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    page = (ROOT / "docs" / "install.md").read_text()
    assert f"Linux with {', '.join(claimed[:-1])} and {claimed[-1]}" in " ".join(page.split())
    assert PROJECT["requires-python"] == f">={claimed[0]}"


SCRIPT = """
import curriculum_sampler as cs

schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1.0}, steps=10, lr=1e-5)])
plan = schedule.plan(bucket_sizes={"easy": 50}, batch_size=8)
sampler = cs.MixtureSampler(plan, seed=17)
reveal_type(plan.at(step=3).lr)
reveal_type(plan.exposure()["easy"]["easy"].passes)
reveal_type(sampler.draws(step=3))
reveal_type(sampler.draws(step=3)[0].bucket)
reveal_type(sampler.state_dict())
manifest = cs.Manifest.load("s3://bucket/v1", endpoint_url="http://localhost:9000")
reveal_type(manifest.bucket_sizes)
loader = cs.CurriculumLoader(cs.CurriculumDataset(manifest), schedule, batch_size=8, seed=17)
reveal_type(loader.lr)
reveal_type(loader.advance(reason="plateau"))
reveal_type(cs.open_storage("data").stat("a").num_bytes)
reveal_type(cs.write_shards("data", {"easy": [{"__key__": "a", "cls": 1}]}).fingerprint)
from curriculum_sampler.testing import check_resume, check_storage, MemoryStorage
check_resume(lambda: cs.MixtureSampler(plan, 17))
check_storage(MemoryStorage)
"""
REVEALED = [
    "float | None",
    "float",
    "curriculum_sampler.draws.Draws",
    "str",
    "dict[str, Any]",
    "dict[str, int]",
    "float | None",
    "int",
    "int",
    "str",
]
WRONG = """
import curriculum_sampler as cs

cs.Stage("easy", {"easy": 1.0}, steps="ten")
cs.StageSchedule([]).plan({"easy": 50})
cs.MixtureSampler.from_labels(None, [], batch_size=1, seed=2)
cs.Manifest.load("data", endpoint="http://localhost")
"""


def environment_with(wheel: Path, home: Path) -> Path:
    """A fresh environment with the wheel and numpy (that of these tests, no copy), and the interpreter in it."""
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = (home / "lib").glob("python3.*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    import numpy

    (site / "numpy").symlink_to(Path(numpy.__file__).parent)
    return home / "bin" / "python"


def type_checked(script: str, python: Path, folder: Path) -> list[str]:
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")},
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_a_users_script_is_type_checked_against_the_wheel(wheel: Path, tmp_path: Path) -> None:
    python = environment_with(wheel, tmp_path / "venv")
    told = type_checked(SCRIPT, python, tmp_path)
    assert [line for line in told if "error" in line] == []
    revealed = re.findall(r'Revealed type is "(.*)"', "\n".join(told))
    assert [re.sub(r"\bbuiltins\.", "", name) for name in revealed] == REVEALED
    errors = [line for line in type_checked(WRONG, python, tmp_path) if ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["4", "5", "6", "7"]


def interpreters() -> dict[str, str | None]:
    """Python 3.11 to 3.14, each with where it is found on this machine, if it is."""
    found: dict[str, str | None] = {}
    for minor in range(11, 15):
        name = f"python3.{minor}"
        here = [sys.executable] if sys.version_info[:2] == (3, minor) else []
        by_pyenv = map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        # A shim of pyenv is on the path also where nothing is behind it.
        on_path = [path for path in [shutil.which(name)] if path and "shims" not in path]
        found[name] = next(iter([*here, *by_pyenv, *on_path]), None)
    return found


LOOK = """
import json, sys
import curriculum_sampler as cs
schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=5), cs.Stage("hard", {"easy": 1, "hard": 3}, steps=5)])
plan = schedule.plan({"easy": 50, "hard": 30}, batch_size=8)
sampler = cs.MixtureSampler(plan, seed=17)
drawn = [list(map(list, batch)) for batch in sampler]
from curriculum_sampler.testing import check_exact, check_resume, check_storage, MemoryStorage
check_exact(cs.MixtureSampler(plan, seed=17), plan)
check_resume(lambda: cs.MixtureSampler(plan, seed=17))
check_storage(MemoryStorage)
print(json.dumps([plan.fingerprint, drawn]))
"""


def installed_in(home: Path, python: str, what: str, wheel: Path) -> Path:
    """A fresh environment of that interpreter with the wheel, by pip."""
    subprocess.run([python, "-m", "venv", home], check=True)
    fresh = home / "bin" / "python"
    pip = [
        fresh,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        ROOT / "constraints.txt",
    ]
    subprocess.run([*pip, f"{wheel}{what}"], check=True)
    return fresh


def run_in(python: Path, *words: object) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AWS_"))}
    return subprocess.run(
        [python, *map(str, words)], capture_output=True, text=True, check=False, cwd=python.parent, env=kept
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", interpreters())
def test_with_numpy_alone_plans_and_samplers_work_on_every_python(
    name: str, wheel: Path, tmp_path: Path
) -> None:
    python = interpreters()[name]
    if python is None:
        pytest.skip(f"{name} is not installed here")
    fresh = installed_in(tmp_path / "venv", python, "", wheel)
    listed = json.loads(
        run_in(fresh, "-m", "pip", "list", "--format=json", "--disable-pip-version-check").stdout
    )
    assert {entry["name"] for entry in listed} - {"pip", "setuptools"} == {"curriculum-sampler", "numpy"}
    told = run_in(fresh, "-W", "error", "-c", LOOK)
    assert told.stderr == ""
    here = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == json.loads(here.stdout), "another Python draws otherwise"
    command = fresh.parent / "curriculum-sampler"
    for words in (
        ["--help"],
        ["--version"],
        ["doctor"],
        ["doctor", "--json"],
        ["plan", "catvton"],
        ["plan", "--help"],
    ):
        ran = subprocess.run([command, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, ""), f"{words}: {ran.stderr}"
        assert ran.stdout
    missing = run_in(fresh, "-c", "import curriculum_sampler as cs; cs.open_storage('s3://bucket/v1')")
    assert 'Run: pip install "curriculum-sampler[s3]"' in missing.stderr


READ = """
import sys
import curriculum_sampler as cs
from curriculum_sampler.testing import synthetic_manifest, synthetic_sample
synthetic_manifest({"easy": 20, "hard": 9}, storage=cs.open_storage(sys.argv[1]))
dataset = cs.CurriculumDataset(cs.Manifest.load(sys.argv[1]))
assert dataset[cs.Draw("hard", 7)]["json"] == synthetic_sample("hard", 7)["json"]
print([sample["cls"] for sample in dataset.sequential()])
cs.open_storage("s3://bucket/v1")
"""


@pytest.mark.slow
def test_with_data_and_s3_shards_are_written_and_read(wheel: Path, tmp_path: Path) -> None:
    fresh = installed_in(tmp_path / "venv", sys.executable, "[data,s3]", wheel)
    told = run_in(fresh, "-W", "error", "-c", READ, tmp_path / "data")
    assert told.stderr == ""
    assert told.stdout == f"{[*range(20), *range(9)]}\n"
    listed = json.loads(run_in(fresh, "-m", "pip", "list", "--format=json").stdout)
    assert not {"torch", "webdataset", "matplotlib"} & {entry["name"] for entry in listed}
    ran = run_in(fresh, "-m", "curriculum_sampler", "doctor", tmp_path / "data")
    assert ran.returncode == 0
    assert "'easy-000000' (cls, json, npy) read and verified" in ran.stdout
