"""A script hands its signals on, so that a trainer saves before it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = Path(__file__).resolve().parents[2] / "examples" / "environment.sh"
# Says what it received, and leaves with the number given.
TRAINER = """
import signal, sys
def leave(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(int(sys.argv[1]))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, leave)
print("ready", flush=True)
while True:
    signal.pause()
"""


def started(tmp_path: Path, leaves_with: int, shells: int = 1) -> subprocess.Popen[str]:
    """A trainer below so many shells; the signals of the outermost are all that it gets."""
    trainer, script = tmp_path / "trainer.py", tmp_path / "script.sh"
    trainer.write_text(TRAINER)
    script.write_text(
        f'set -euo pipefail\nOUTPUT_ROOT="{tmp_path}"\nsource "{ENVIRONMENT}"\n'
        'status=0\npassing_signals "$@" || status=$?\necho "left with $status"\nexit "$status"\n'
    )
    command = [*["bash", str(script)] * shells, sys.executable, str(trainer), str(leaves_with)]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "ready\n"
    return shell


@pytest.mark.parametrize("shells", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_shell_alone_reaches_the_trainer(
    tmp_path: Path, number: signal.Signals, status: int, shells: int
) -> None:
    shell = started(tmp_path, leaves_with=status, shells=shells)
    shell.send_signal(number)
    said, _ = shell.communicate(timeout=60)
    assert said == f"{number.name}\n" + f"left with {status}\n" * shells
    assert shell.returncode == status


def test_a_launcher_that_says_1_does_not_hide_the_signal(tmp_path: Path) -> None:
    shell = started(tmp_path, leaves_with=1)
    shell.send_signal(signal.SIGTERM)
    shell.communicate(timeout=60)
    assert shell.returncode == 143


def test_a_trainer_that_finishes_in_spite_of_a_signal_has_finished(tmp_path: Path) -> None:
    shell = started(tmp_path, leaves_with=0)
    shell.send_signal(signal.SIGTERM)
    shell.communicate(timeout=60)
    assert shell.returncode == 0


@pytest.mark.parametrize("status", [0, 2, 77])
def test_without_a_signal_the_status_is_the_command_s(tmp_path: Path, status: int) -> None:
    script = f'OUTPUT_ROOT="{tmp_path}"; source "{ENVIRONMENT}"; passing_signals bash -c "exit {status}"'
    assert subprocess.run(["bash", "-c", script]).returncode == status
