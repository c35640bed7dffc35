"""Files of configMaps, secrets and the like, changed all at once: a reader sees the old version or the new, never both.

    folder/..2026_11_25_03_40_00.123456/key    the files themselves
    folder/..data -> ..2026_...                 replaced in one step
    folder/key -> ..data/key                    what pods read

It is the layout of the kubelet, which programs that watch their configuration know.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

Files = dict[str, tuple[bytes, int]]  # by relative path: content and mode


def write(folder: Path, files: Files) -> bool:
    """Whether anything changed."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "..data"
    if _same(link, files):
        return False
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=folder))
    fresh.chmod(0o755)
    for name, (data, mode) in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    before = folder / link.readlink() if link.is_symlink() else None
    draft = folder / "..data_tmp"
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    draft.replace(link)
    _link(folder, {name.partition("/")[0] for name in files})
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)
    return True


def _same(link: Path, files: Files) -> bool:
    if not link.is_symlink():
        return False
    found = {str(path.relative_to(link)): path for path in link.rglob("*") if path.is_file()}
    return found.keys() == files.keys() and all(
        path.read_bytes() == files[name][0] and path.stat().st_mode & 0o7777 == files[name][1]
        for name, path in found.items()
    )


def _link(folder: Path, names: set[str]) -> None:
    for present in folder.iterdir():
        if not present.name.startswith("..") and present.name not in names:
            present.unlink()
    for name in names:
        path = folder / name
        if not path.is_symlink():
            path.unlink(missing_ok=True)  # of a layout without links
            path.symlink_to(Path("..data") / name)
