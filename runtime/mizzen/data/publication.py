"""Folders of a mounted file system: one to work in, and one that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mizzen.errors import SystemError_
from mizzen_api import contract

ABANDONED_SECONDS = 24 * 3600.0  # after which a scratch folder, or half a version, is nobody's


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def local_folder(uri: str) -> Path:
    """The path behind file:// or a plain path."""
    if is_remote(uri):
        raise SystemError_(f"{uri}: only file:// and paths (a mounted volume) are supported here")
    return Path(uri.removeprefix("file://"))


def is_published(folder: Path) -> bool:
    return (folder / contract.DATASET_MANIFEST).is_file()


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A hidden folder beside the versions: on the same file system, and gone afterwards. So are those of dead pods."""
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob(".scratch-*"):
        with contextlib.suppress(FileNotFoundError):  # its maker has just ended
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    folder = home / f".scratch-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            home.rmdir()  # where nothing was published, nothing is left


class Publication:
    """A folder that appears under its name only when it is complete.

    with Publication(folder) as draft: ...write into draft...
    """

    def __init__(self, folder: Path, marker: str = contract.DATASET_MANIFEST) -> None:
        """`marker` is the file by which a whole folder is known."""
        self.folder, self.marker = folder, marker
        self.draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        self.draft.mkdir(parents=True)
        return self.draft

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._appear()
        finally:
            shutil.rmtree(self.draft, ignore_errors=True)

    def _is_there(self) -> bool:
        return (self.folder / self.marker).is_file()

    def _appear(self) -> None:
        """Take the name, unless another maker was faster; what lies there half-written goes."""
        while not self._is_there():
            try:
                self.draft.rename(self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not self._is_there():
                    shutil.rmtree(self.folder, ignore_errors=True)
