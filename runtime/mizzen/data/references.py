"""What drift of a version is measured against: another version, or what a live ModelService is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mizzen.data import store
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_drift import Drift
from mizzen_api.workload import LiveReference

if TYPE_CHECKING:
    from mizzen.data.drift import DriftReport
    from mizzen.data.profiles import Profile


@dataclass(frozen=True)
class Reference:
    """A version by its URI, or a ModelService. `name` is what reports call it."""

    name: str
    uri: str | None = None
    service: LiveReference | None = None

    def profile(self, least_rows: int) -> tuple[Profile | None, str]:
        """What it looks like, or why that cannot be known."""
        if self.service is not None:
            from mizzen.data.live import traffic

            return traffic(self.service, least_rows)
        assert self.uri is not None
        return store.DatasetVersion(self.uri).profile(), ""


@dataclass(frozen=True)
class Measured:
    """How far a version is from its reference; `note` says why that is not known, where it should be."""

    report: DriftReport | None = None
    reference: str = ""
    note: str = ""


def measure(settings: Drift | None, reference: Reference | None, profile: Profile) -> Measured:
    """UserError Drifted where the settings make that a failure."""
    if settings is None or reference is None:
        return Measured()
    from mizzen.data.drift import compare

    before, note = reference.profile(settings.min_rows)
    if before is None:
        return Measured(reference=reference.name, note=note)
    report = compare(before, profile, settings)
    if report.drifted and settings.on_drift == "Fail":
        raise UserError(
            Reason.DRIFTED,
            f"the data has drifted: {report.message}. Look into it, or set onDrift: Warn to publish it all the same",
        )
    return Measured(report, reference.name)
