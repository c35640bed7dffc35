"""Where the versions of a Dataset lie: a folder of a mounted file system, or a prefix of an object store.

A version is there once its manifest is: a folder takes its name when it is whole, and of a prefix the manifest is the
last object that is written.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from mizzen.data.publication import ABANDONED_SECONDS, Publication, is_remote, local_folder, scratch
from mizzen.errors import MizzenError, SystemError_, UserError
from mizzen_api import contract
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from pyarrow import fs


class Home(Protocol):
    """The versions of one Dataset, by the hexadecimal digits of their fingerprints, and small files beside them."""

    shared: bool  # whether other pods see the files of scratch()

    def uri(self, version: str = "") -> str: ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder that is gone afterwards."""

    def publication(self, version: str) -> contextlib.AbstractContextManager[Path]:
        """A local folder to write a version into. It appears whole at the end, or after an error not at all."""

    def read(self, name: str) -> bytes | None:
        """A file, relative to the home; None where it is not there."""

    def write(self, name: str, content: bytes) -> None:
        """The file is whole or as it was."""

    def versions(self) -> list[str]:
        """Those that are published, the one that was made or used last first."""

    def use(self, version: str) -> None:
        """Remember that it is used now, so that `prune` takes others first."""

    def remove(self, version: str) -> None:
        """Of half a version nothing must look like one: the manifest goes first."""


def home_of(artifacts_uri: str, namespace: str, name: str) -> Home:
    """Where a Dataset's versions lie below the artifact store."""
    return open_home(f"{artifacts_uri.rstrip('/')}/datasets/{namespace}/{name}")


def open_home(uri: str) -> Home:
    return RemoteHome(uri) if is_remote(uri) else LocalHome(local_folder(uri))


def is_published(home: Home, version: str) -> bool:
    return home.read(f"{version}/{contract.DATASET_MANIFEST}") is not None


def manifest_of(home: Home, version: str) -> dict[str, Any]:
    """KeyError where there is no such version."""
    content = home.read(f"{version}/{contract.DATASET_MANIFEST}")
    if content is None:
        raise KeyError(version)
    found: dict[str, Any] = json.loads(content)
    return found


def prune(home: Home, keep: int, current: str) -> None:
    """Remove the versions that were used longest ago, beyond `keep`; never the current one."""
    for version in home.versions()[keep:]:
        if version != current:
            home.remove(version)


@dataclass(frozen=True)
class LocalHome:
    """A folder that all pods mount."""

    folder: Path
    shared = True

    def uri(self, version: str = "") -> str:
        return (self.folder / version).absolute().as_uri()

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        return scratch(self.folder)

    def publication(self, version: str) -> contextlib.AbstractContextManager[Path]:
        return Publication(self.folder / version)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{name}.{secrets.token_hex(4)}"
        draft.write_bytes(content)
        draft.replace(self.folder / name)

    def versions(self) -> list[str]:
        found = [
            (file.stat().st_mtime, file.parent.name) for file in self.folder.glob(f"*/{contract.DATASET_MANIFEST}")
        ]
        return [name for _, name in sorted(found, reverse=True) if not name.startswith(".")]

    def use(self, version: str) -> None:
        (self.folder / version / contract.DATASET_MANIFEST).touch()

    def remove(self, version: str) -> None:
        (self.folder / version / contract.DATASET_MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder / version, ignore_errors=True)


@dataclass(frozen=True)
class RemoteHome:
    """A prefix of an object store, by pyarrow, or by fsspec where pyarrow does not know the scheme."""

    root: str
    shared = False

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        from mizzen.data.sources.access import access_in
        from mizzen.data.sources.files import filesystem

        with self._storing():
            return filesystem(self.root, access_in(Path(contract.DATASETS_SECRET_DIR)))

    def uri(self, version: str = "") -> str:
        return f"{self.root}/{version}".rstrip("/")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="mizzen-") as folder:
            yield Path(folder)

    @contextmanager
    def publication(self, version: str) -> Iterator[Path]:
        """Whoever makes the same version meanwhile writes the same bytes."""
        with self.scratch() as draft:
            yield draft
            files = sorted(file for file in draft.rglob("*") if file.is_file())
            files.sort(key=lambda file: file.name == contract.DATASET_MANIFEST)
            for file in files:
                self._upload(file, f"{version}/{file.relative_to(draft).as_posix()}")

    def read(self, name: str) -> bytes | None:
        system, base = self._place
        with self._storing():
            try:
                with system.open_input_stream(f"{base}/{name}") as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def download(self, name: str, target: Path) -> bool:
        """Into a local file, which is whole or not there. False where there is no such object."""
        system, base = self._place
        draft = target.with_name(f".{target.name}.{time.monotonic_ns()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._storing():
            try:
                with system.open_input_stream(f"{base}/{name}") as stream, draft.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 22)
                draft.replace(target)
            except FileNotFoundError:
                return False
            finally:
                draft.unlink(missing_ok=True)
        return True

    def write(self, name: str, content: bytes) -> None:
        system, base = self._place
        with self._storing(), self._created(system, f"{base}/{name}") as stream:
            stream.write(content)

    def _upload(self, file: Path, name: str) -> None:
        system, base = self._place
        with self._storing(), file.open("rb") as content, self._created(system, f"{base}/{name}") as stream:
            shutil.copyfileobj(content, stream, 1 << 22)

    @staticmethod
    def _created(system: fs.FileSystem, path: str) -> Any:
        """An object appears when its stream is closed; folders are for stores that have some."""
        from pyarrow import fs

        if not isinstance(system, fs.S3FileSystem):
            system.create_dir(str(PurePosixPath(path).parent), recursive=True)
        return system.open_output_stream(path)

    def versions(self) -> list[str]:
        manifests: dict[str, int] = {}
        abandoned: dict[str, int] = {}
        for info in self._listed():
            version, _, name = info.path.removeprefix(self._place[1]).lstrip("/").partition("/")
            if name == contract.DATASET_MANIFEST:
                manifests[version] = info.mtime_ns or 0
            elif name:
                abandoned[version] = max(info.mtime_ns or 0, abandoned.get(version, 0))
        for version in abandoned.keys() - manifests.keys():
            if time.time() - abandoned[version] / 1e9 > ABANDONED_SECONDS:
                self.remove(version)
        return sorted(manifests, key=lambda version: (manifests[version], version), reverse=True)

    def _listed(self) -> list[fs.FileInfo]:
        from pyarrow import fs

        system, base = self._place
        with self._storing():
            found = system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return [info for info in found if info.type == fs.FileType.File]

    def use(self, version: str) -> None:
        """An object's time is that of its writing."""
        name = f"{version}/{contract.DATASET_MANIFEST}"
        content = self.read(name)
        if content is not None:
            self.write(name, content)

    def remove(self, version: str) -> None:
        system, base = self._place
        with self._storing():
            with contextlib.suppress(FileNotFoundError):
                system.delete_file(f"{base}/{version}/{contract.DATASET_MANIFEST}")
            with contextlib.suppress(FileNotFoundError):
                system.delete_dir(f"{base}/{version}")

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """What the store's client raises, with the store's name, and whether another try may do."""
        from mizzen.data.sources.files import is_lasting, short

        try:
            yield
        except (MizzenError, FileNotFoundError):
            raise
        except (OSError, ValueError, ImportError) as error:
            message = f"artifact store {self.root}: {short(error)}"
            if is_lasting(error):
                mend = "check the address, and the Secret that the chart's artifacts.datasets.secretName names"
                raise UserError(Reason.ARTIFACTS_FORBIDDEN, f"{message}; {mend}") from error
            raise SystemError_(message) from error
