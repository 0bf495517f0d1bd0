"""Manners that every command has: help, exit codes, JSON, no traceback, quiet where nobody looks."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import curriculum_sampler as cs
from curriculum_sampler import commands
from curriculum_sampler.command_line import _parser, command_names, main
from curriculum_sampler.terminal import Answer, Terminal

from .command_fixtures import Commands, Screen, command, data

HEAVY = {
    "torch",
    "boto3",
    "botocore",
    "xxhash",
    "PIL",
    "safetensors",
    "tqdm",
    "webdataset",
    "matplotlib",
    "pyarrow",
}


def shell(*words: object, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    how = ["-m", "curriculum_sampler"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *how, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_bare_call_prints_the_commands(command: Commands) -> None:
    ran = command()
    assert ran.exit_code == 0
    for name in command_names():
        assert re.search(rf"^    {name}\b", ran.out, re.MULTILINE)


def test_the_version_is_that_of_the_package(command: Commands) -> None:
    assert command("--version") == (0, f"curriculum-sampler {cs.__version__}\n", "")


@pytest.mark.parametrize("name", command_names())
def test_the_help_of_a_command_has_a_summary_and_examples_that_parse(name: str, command: Commands) -> None:
    ran = command(name, "--help")
    assert ran.exit_code == 0
    assert ran.err == ""
    module = importlib.import_module(f".{name.replace('-', '_')}", commands.__name__)
    summary = (module.__doc__ or "").partition("\n")[0]
    assert summary.endswith((".", ":"))
    assert summary in ran.out
    examples = re.findall(rf"^  curriculum-sampler {name} .+", ran.out, re.MULTILINE)
    assert len(examples) >= 2, "help without examples"
    for example in examples:
        assert _parser([name]).parse_args(shlex.split(example)[1:]).module is module


@pytest.mark.parametrize("name", ["", *command_names()])
def test_help_fits_a_terminal_of_80_columns(
    name: str, command: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    # The usage, which argparse breaks, and the examples, which one copies, may be wider.
    _, _, told = command(*name.split(), "--help").out.partition("\n\n")
    assert [line for line in told.partition("\nexamples:")[0].splitlines() if len(line) > 80] == []


def test_help_imports_nothing_heavy() -> None:
    said = shell(
        code="import sys\nfrom curriculum_sampler.command_line import main, command_names\n"
        "codes = [main([]), *(main([name, '--help']) for name in command_names())]\n"
        "print(codes, *sys.modules, file=sys.stderr)"
    ).stderr
    loaded = set(said.split())
    assert "numpy" in loaded
    assert "[0," in loaded
    assert not HEAVY & loaded


def test_the_help_guard_would_notice() -> None:
    said = shell(code="import sys, curriculum_sampler as cs; cs.verify_dataset; print(*sys.modules)").stdout
    assert HEAVY & set(said.split())


@pytest.mark.parametrize(
    "words", [["vrify"], ["verify"], ["verify", "a", "b"], ["cat", "x", "--step", "two"]]
)
def test_a_mistake_in_the_words_is_exit_code_2_with_the_usage(words: list[str], command: Commands) -> None:
    ran = command(*words)
    assert ran.exit_code == 2
    assert ran.out == ""
    assert ran.err.startswith("usage: curriculum-sampler")


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "nowhere"],
        ["inspect", "nowhere"],
        ["cat", "nowhere", "easy:0"],
        ["append", "nowhere", "elsewhere"],
        ["index", "nowhere"],
        ["rebucket", "nowhere", "--into", "new", "--scores", "s.csv", "--shares", "a=1"],
        ["check-difficulty", "nowhere", "--losses", "l.csv"],
        ["verify", "ftp://host/data"],
    ],
)
def test_a_users_mistake_is_one_message_and_no_traceback(words: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "curriculum_sampler", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr
    assert "nowhere" in ran.stderr or "ftp" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_its_command(data: Path) -> None:
    hide = "import sys; sys.modules['xxhash'] = None\nfrom curriculum_sampler.command_line import main\n"
    ran = shell("verify", data, code=f"{hide}sys.exit(main())")
    assert ran.returncode == 2
    assert 'Run: pip install "curriculum-sampler[data]"' in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_tqdm_there_is_no_bar_and_no_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    screen = Screen()
    with Terminal(err=screen).progress("verify") as progress:
        progress(1, 2)
    assert screen.getvalue() == ""


def test_a_bar_is_for_terminals_only() -> None:
    screen = Screen()
    with Terminal(err=screen).progress("verify", unit="sample") as progress:
        progress(1, 4, "score")
        progress(4, 4, "score")
        progress(1, 2, "write")
    assert "score" in screen.getvalue()
    assert "write" in screen.getvalue()
    for quiet in (Terminal(is_quiet=True, err=Screen()), Terminal()):
        with quiet.progress("verify") as progress:
            progress(1, 2)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Terminal(out=Screen()).bad("2 faults") == "\x1b[31m2 faults\x1b[0m"
    assert Terminal(out=Screen(), is_json=True).bad("2 faults") == "2 faults"
    assert Terminal().bad("2 faults") == "2 faults"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Terminal(out=Screen()).bad("2 faults") == "2 faults"


@pytest.mark.parametrize(
    "words", [["verify"], ["verify", "--fast"], ["inspect"], ["cat", "easy:0"], ["index", "--dry-run"]]
)
def test_json_is_all_that_is_printed(words: list[str], data: Path, command: Commands) -> None:
    name, *more = words
    ran = command(name, data / "train" if name == "index" else data, *more, "--json")
    assert ran.exit_code == 0
    assert ran.err == ""
    assert isinstance(json.loads(ran.out), dict)


def test_an_interrupt_is_exit_code_130_and_says_what_is_kept(
    data: Path, command: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("curriculum_sampler.verify.open_shard", interrupted)
    ran = command("verify", data)
    assert ran.exit_code == 130
    assert ran.out == ""
    assert "Run the same command again" in ran.err


def test_a_reader_that_has_seen_enough_is_no_error(data: Path) -> None:
    both = f"{sys.executable} -m curriculum_sampler inspect {data} --json; echo $? >&2"
    ran = subprocess.run(["bash", "-c", f"({both}) | true"], capture_output=True, text=True, check=False)
    assert ran.stderr.strip() in ("0", str(128 + signal.SIGPIPE))


def test_the_script_that_is_installed_is_this_command() -> None:
    told = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    module, _, name = told["project"]["scripts"]["curriculum-sampler"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


def test_an_answer_in_letters_that_the_stream_lacks_is_still_given() -> None:
    ran = shell(
        code="from curriculum_sampler.terminal import Answer, Terminal; Terminal().show(Answer({}, 'bar \\u2588'))",
        PYTHONIOENCODING="ascii",
    )
    assert ran.returncode == 0
    assert ran.stdout == "bar ?\n"
    assert Answer({}, "").exit_code == 0
