"""Optional means invisible: what is not installed is missed only by those who use it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str, absent: list[str]) -> str:
    """Run ``code`` in a fresh interpreter that cannot import ``absent``."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("absent", "code", "message"),
    [
        ("boto3", "from curriculum_sampler.locations import open_storage; open_storage('s3://b/a')", "boto3"),
        ("xxhash", "import curriculum_sampler.build", "xxhash"),
        ("PIL", "import curriculum_sampler.dataset", "pillow and safetensors"),
        ("safetensors", "import curriculum_sampler.encode", "pillow and safetensors"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    absent: str, code: str, message: str
) -> None:
    extra = "s3" if absent == "boto3" else "data"
    said = run(code, [absent])
    assert (
        f"MissingExtraError: This needs {message}, which is not installed. "
        f'Run: pip install "curriculum-sampler[{extra}]"' in said
    )


def test_a_manifest_is_read_from_a_folder_with_numpy_alone() -> None:
    code = "import sys, curriculum_sampler.manifest, curriculum_sampler.draws\nprint('torch' in sys.modules, 'ok')"
    assert run(code, ["boto3", "botocore", "xxhash", "PIL", "safetensors"]) == "False ok\n"
