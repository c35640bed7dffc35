"""The indexes of an Indexed Job: how a status writes them, which have failed, and when the Job is done. Pure."""

from __future__ import annotations

from mizzen_local.client import Object
from mizzen_local.objects import meta

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
Failures = tuple[int, int]  # how often an index has failed: counted and ignored


def parse_indexes(text: str) -> set[int]:
    """`"0-2,4"` is {0, 1, 2, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: set[int]) -> str:
    """Runs of three and more are written as a range."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(
        str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}" for first, last in runs
    )


def index_of(pod: Object) -> int | None:
    text = (meta(pod).get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and text.isdigit() else None


def noted(pod: Object) -> Failures:
    """How often the pod's index had failed before it."""
    notes = meta(pod).get("annotations") or {}
    counted, ignored = (notes.get(key, "0") for key in (FAILURES, IGNORED))
    return int(counted) if counted.isdigit() else 0, int(ignored) if ignored.isdigit() else 0


def notes(failures: Failures) -> dict[str, str]:
    """The annotations of a pod whose index has failed so often."""
    counted, ignored = failures
    return {FAILURES: str(counted), **({IGNORED: str(ignored)} if ignored else {})}


def success_policy(job: Object, succeeded: set[int]) -> str:
    """The message of the first rule of the successPolicy that holds; empty where none does."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or []):
        count, named = rule.get("succeededCount"), rule.get("succeededIndexes")
        wanted = parse_indexes(named) if named is not None else None
        have = succeeded if wanted is None else succeeded & wanted
        enough = count is not None and len(have) >= count
        if succeeded and (enough or (wanted and have == wanted)):
            return f"Matched rules at index {number}"
    return ""


def failed_enough(job: Object, succeeded: set[int], failed: set[int]) -> tuple[str, str] | None:
    """(reason, message) where the failed indexes end the Job."""
    spec = job["spec"]
    most = spec.get("maxFailedIndexes")
    if most is not None and len(failed) > most:
        return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    if failed and len(failed | succeeded) >= spec["completions"]:
        return "FailedIndexes", "Job has failed indexes"
    return None
