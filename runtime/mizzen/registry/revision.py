"""Which code made a model: the git commit where there is one, the package's version in an image."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import mizzen


@functools.cache
def code_revision() -> str:
    """$MIZZEN_CODE_REVISION (set by image builds), or the commit of the checkout, or the package's version."""
    if said := os.environ.get("MIZZEN_CODE_REVISION"):
        return said
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"mizzen-{mizzen.__version__}"
