"""Small files that are read while others write them."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Readers see the old file or the new one, and never a part: written aside, then renamed."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    draft.replace(path)
