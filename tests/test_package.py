"""Guards: what the package exports, what importing it costs, who may import whom, and what no code may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import curriculum_sampler as cs

SOURCE = Path(cs.__file__).parent
HEAVY = [
    "torch",
    "boto3",
    "botocore",
    "webdataset",
    "xxhash",
    "PIL",
    "pyarrow",
    "ray",
    "safetensors",
    "wandb",
    "diffusers",
    "matplotlib",
    "torchdata",
    "lightning",
    "transformers",
]

# Lowest first; a module may import those before it. ``plan`` and ``schedule`` know each other's types only.
LAYERS = [
    *("errors", "keys", "checks", "quota", "permutation", "draws", "exposure", "segment"),
    *("plan", "preset", "schedule", "cut", "difficulty_rule", "assignment", "order"),
    *("foreseen", "foresight", "state", "sampler", "stream", "mixed_streams"),
    *("timeline", "simulation"),
]
PURE = {*LAYERS}


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports when it runs (not those it only needs for types)."""
    tree = ast.parse(path.read_text())
    typing_only = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    hidden = {id(inner) for block in typing_only for inner in ast.walk(block)}
    return {
        node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and id(node) not in hidden
    }


def test_the_shelf_is_what_it_says():
    assert sorted(cs.__all__) == cs.__all__
    assert cs.__version__.count(".") == 2
    assert len(set(cs.__all__)) == len(cs.__all__)
    for name in cs.__all__:
        assert getattr(cs, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cs.nothing


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = run_python("import sys, curriculum_sampler; print(*sys.modules)").split()
    assert "numpy" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_the_import_guard_would_notice():
    loaded = run_python(
        "import sys, curriculum_sampler as cs; cs.CurriculumLoader; print(*sys.modules)"
    ).split()
    assert "torch" in loaded


@pytest.mark.parametrize("position", range(len(LAYERS)))
def test_imports_point_downwards(position):
    name = LAYERS[position]
    assert imports_of(SOURCE / f"{name}.py") <= set(LAYERS[:position]), f"{name} imports upwards"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_data_half_does_not_know_the_order_half(path):
    if path.stem in PURE or path.stem in ("__init__", "loader", "ahead", "learning_rate", "training_report"):
        return
    assert imports_of(path).isdisjoint(
        {"quota", "permutation", "plan", "schedule", "order", "sampler", "loader"}
    )


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_nobody_calculates_with_a_seed(path):
    """Sums collide: keys are derived by name instead."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr):
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            assert not [name for name in names if name.endswith("seed")], ast.unparse(node)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_core_knows_no_model(path):
    words = re.findall(r"[a-z]+", path.read_text().lower())
    assert not {"vton", "garment", "tryon", "catvton", "dit", "vtongan", "cloth"} & set(words)
