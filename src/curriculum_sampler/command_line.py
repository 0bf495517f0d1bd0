"""The command ``curriculum-sampler``: finds the command that is meant, runs it, and ends with an exit code.

0 is good, 1 means that faults were found in the data, 2 that the command could not do what it was asked for (a mistake
of the user, a place that cannot be reached), 130 that it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

from . import commands
from .errors import CurriculumError
from .terminal import Terminal

PROGRAM = "curriculum-sampler"

_WELCOME = """\
Deterministic curriculum sampling for training from sharded data: easy to hard.

Data are read from and written to folders and s3:// urls alike."""
_FAREWELL = """\
'curriculum-sampler COMMAND --help' tells more about a command, with examples.
Exit codes: 0 good, 1 faults found in the data, 2 a mistake or a place that
cannot be reached, 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    >>> main(["--version"])  # doctest: +ELLIPSIS
    curriculum-sampler ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    names = command_names()
    # Only the command that is meant is imported; its help and that of all the others cost nothing.
    meant = [word for word in words[:1] if word in names]
    parser = _parser(meant or names)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as left:  # argparse has printed help, or what is wrong
        return left.code if isinstance(left.code, int) else 2
    if arguments.module is None:
        parser.print_help()
        return 0
    terminal = Terminal(is_json=arguments.json, is_quiet=arguments.quiet)
    try:
        answer = arguments.module.run(arguments, terminal)
        if answer is not None:
            terminal.show(answer)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except CurriculumError as error:
        terminal.complain(_in_flags(str(error), arguments))
        return 2
    except OSError as error:  # a file that was named in the arguments
        terminal.complain(
            f"{error.filename or 'A file'}: {error.strerror or error}. Check the name and your rights."
        )
        return 2
    except KeyboardInterrupt:
        terminal.complain(getattr(arguments.module, "ON_INTERRUPT", "Interrupted."))
        return 130
    return 0 if answer is None else int(answer.exit_code)


def command_names() -> list[str]:
    """Return the names of all commands.

    >>> "verify" in command_names()
    True
    """
    return [found.name.replace("_", "-") for found in pkgutil.iter_modules(commands.__path__)]


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_WELCOME,
        epilog=_FAREWELL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
    parser.set_defaults(module=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        module = import_module(f".{name.replace('-', '_')}", commands.__name__)
        _add_command(subparsers, name, module)
    return parser


def _add_command(subparsers: Any, name: str, module: ModuleType) -> None:
    told, _, examples = (module.__doc__ or "").partition("\nExamples:\n")
    summary, _, more = told.partition("\n")
    command = subparsers.add_parser(
        name,
        help=_without_full_stop(summary),
        description=f"{summary}\n{more.rstrip()}",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(command)
    manners = command.add_argument_group("output")
    manners.add_argument("--json", action="store_true", help="print the result as JSON")
    manners.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(module=module)


def _in_flags(message: str, arguments: argparse.Namespace) -> str:
    """Return a message of the library with its arguments spelt as the command's options.

    >>> _in_flags("Pass overwrite=True, or another split=.", argparse.Namespace(overwrite=False, split="train"))
    'Pass --overwrite, or another --split.'
    >>> _in_flags("batch_size: got 0, but it is 1 or more.", argparse.Namespace(batch_size=0))
    '--batch-size: got 0, but it is 1 or more.'
    """
    for name in vars(arguments):
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"(?<![^\s(]){name}=True\b", flag, message)
        message = re.sub(rf"(?<![^\s(]){name}=(?=[\w'\"\[{{])", f"{flag} ", message)
        message = re.sub(rf"(?<![^\s(]){name}=(?=[\s.,;:)])", flag, message)
        message = re.sub(rf"^{name}(?=: got )", flag, message)
    return message


def _without_full_stop(summary: str) -> str:
    first = summary.strip().rstrip(".")
    return (first[:1].lower() + first[1:]).replace("%", "%%")
