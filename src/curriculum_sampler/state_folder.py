"""Where commands remember what they did, on this machine and for this user."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def state_file(command: str, *places: str) -> Path:
    """Return the file in which a command remembers what it did with some places.

    >>> file = state_file("verify", "s3://my-bucket/v1")
    >>> file == state_file("verify", "s3://my-bucket/v1"), file == state_file("verify", "s3://my-bucket/v2")
    (True, False)
    """
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = hashlib.blake2b("\n".join(places).encode(), digest_size=8).hexdigest()
    return Path(home).expanduser() / "curriculum-sampler" / command / f"{name}.jsonl"
