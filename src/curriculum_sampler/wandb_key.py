"""Whether Weights & Biases would find a key, told without loading it."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def has_wandb_key() -> bool:
    """Look where W&B looks: in ``WANDB_API_KEY``, and in ``~/.netrc`` under the server's host."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
