"""What has changed from one published version of a dataset to another, as values, JSON and tables."""

from mizzen.data.diff.compare import Change, Count, StepChange, VersionDiff, compare_versions
from mizzen.data.diff.snapshot import Snapshot, load, locate

__all__ = ["Change", "Count", "Snapshot", "StepChange", "VersionDiff", "compare_versions", "load", "locate"]
