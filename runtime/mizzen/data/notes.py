"""Small files beside a Dataset's versions, which save work or name things: what cannot be read is empty."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from mizzen.data.homes import Home, is_published
from mizzen_api import contract
from mizzen_api.workload import NewestVersion

KNOWN, MLFLOW = ".known.json", ".mlflow.json"


class Notes:
    """Texts by keys, in one JSON file."""

    MOST = 1000

    def __init__(self, home: Home, name: str) -> None:
        self._home, self._name = home, name

    def all(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._home.read(self._name) or b"{}")
        except ValueError:
            return {}
        return found

    def get(self, key: str) -> str | None:
        return self.all().get(key)

    def put(self, key: str, value: str) -> None:
        there = self.all()
        if there.get(key) != value:
            self.write(there | {key: value})

    def write(self, entries: Mapping[str, str]) -> None:
        self._home.write(self._name, json.dumps(dict(list(entries.items())[-self.MOST :])).encode())


class Known:
    """Fingerprints by what the sources looked like from outside: sizes, times, ETags. Unchanged ones are not read."""

    def __init__(self, home: Home) -> None:
        self._home, self._notes = home, Notes(home, KNOWN)

    def get(self, identity: str) -> str | None:
        """The fingerprint of a version that is still there."""
        found = self._notes.get(_digest(identity))
        return found if found and is_published(self._home, found.removeprefix("sha256:")) else None

    def put(self, identity: str, fingerprint: str) -> None:
        self._notes.put(_digest(identity), fingerprint)


class History:
    """Fingerprints by the numbers that versions have in a Dataset's status."""

    def __init__(self, home: Home) -> None:
        self._notes = Notes(home, contract.DATASET_VERSIONS)

    def all(self) -> dict[int, str]:
        return {int(number): fingerprint for number, fingerprint in self._notes.all().items()}

    def record(self, fingerprint: str, newest: NewestVersion | None) -> int:
        """The version's number: that of the newest where it is the same, else the next.

        `newest` is what the status says. Without a status the history knows; a Dataset of the same name that was
        deleted leaves no numbers above.
        """
        there = self.all()
        if newest is None:
            last = max(there, default=0)
            newest = NewestVersion(version=last, fingerprint=there.get(last, ""))
        number = newest.version + (fingerprint != newest.fingerprint)
        wanted = {n: kept for n, kept in there.items() if n < number} | {number: fingerprint}
        if wanted != there:
            self._notes.write({str(n): kept for n, kept in sorted(wanted.items())})
        return number


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
