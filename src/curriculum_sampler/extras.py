"""What to say when an optional package is absent."""

from __future__ import annotations

from .errors import MissingExtraError


def missing(package: str, extra: str) -> MissingExtraError:
    """Return the error to raise, with the command that installs what is missing.

    >>> print(missing("boto3", "s3"))
    This needs boto3, which is not installed. Run: pip install "curriculum-sampler[s3]"
    """
    command = f'pip install "curriculum-sampler[{extra}]"'
    return MissingExtraError(f"This needs {package}, which is not installed. Run: {command}")
