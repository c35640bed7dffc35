"""What an ended or stuck pod says about its job, in words for the job's condition."""

from __future__ import annotations

from dataclasses import dataclass

from mizzen_api.conditions import USER_ERRORS, Reason
from mizzen_api.contract import ROLE_MATERIALIZE
from mizzen_api.workload import Progress
from mizzen_operator.observed import JobView, Observed, PodView


@dataclass(frozen=True)
class Outcome:
    """How a Job ended."""

    succeeded: bool
    reason: Reason
    message: str
    progress: Progress | None


def outcome(job: JobView, observed: Observed, limit_field: str) -> Outcome | None:
    """None while it runs. The newest pod's termination message wins over what the Job controller knows."""
    if not job.ended:
        return None
    pods = observed.pods_of_job(job)
    if job.complete:
        pods = tuple(pod for pod in pods if pod.phase == "Succeeded") or pods
    last = pods[-1] if pods else None
    progress = last.progress if last else None
    if job.complete and progress is None:
        return Outcome(False, Reason.INTERNAL_ERROR, _unreadable(last), None)
    if job.complete and progress is not None and progress.state != "Failed":
        message = progress.message or "Finished."
        reason = progress.reason if progress.reason is Reason.GOAL_REACHED else Reason.SUCCEEDED
        return Outcome(True, reason, message, progress)
    if progress is not None and progress.state == "Failed" and progress.reason in USER_ERRORS:
        return Outcome(False, progress.reason, progress.message, progress)
    return _system_failure(job, pods, progress, limit_field)


def _system_failure(job: JobView, pods: tuple[PodView, ...], progress: Progress | None, limit_field: str) -> Outcome:
    why = last_words(pods[-1]) if pods else job.message
    if job.reason == "DeadlineExceeded":
        message = "The job ran into runPolicy.activeDeadlineSeconds: raise it, or ask for less. " + why
        return Outcome(False, Reason.DEADLINE_EXCEEDED, message.strip(), progress)
    if job.reason == "PodFailurePolicy":
        reason = progress.reason if progress and progress.state == "Failed" else Reason.INTERNAL_ERROR
        return Outcome(False, reason, why or job.message, progress)
    message = f"The pod failed more often than {limit_field} allows. The last time: {why or 'it left no message'}"
    return Outcome(False, Reason.BACKOFF_LIMIT_EXCEEDED, message, progress)


def _unreadable(pod: PodView | None) -> str:
    """A Job that is complete without a report: nobody knows what it made."""
    what = f"pod {pod.name} ended well, but its report cannot be read" if pod else "the pod and its report are gone"
    said = f" ({pod.termination.strip()[:200]})" if pod and pod.termination.strip() else ""
    return f"The Job is complete, yet {what}{said}: delete this resource and create it again"


def last_words(pod: PodView, resources: str = "") -> str:
    """Why the pod ended: its report, else the end of its log, else how the kubelet saw it die.

    `resources` is the field of the spec that sets the pod's memory; empty where none does.
    """
    progress = pod.progress
    if progress is not None:
        return progress.message
    if pod.terminated == "OOMKilled":
        field = resources or ("resources" if pod.role == ROLE_MATERIALIZE else "")
        mend = f": raise {field}.memory" if field else ""
        return f"pod {pod.name} ran out of memory (OOMKilled){mend}"
    if pod.termination.strip():
        return pod.termination.strip()
    if pod.exit_code is not None:
        return f"pod {pod.name} ended with exit code {pod.exit_code} and without a message; see kubectl logs {pod.name}"
    return ""


def stuck(pods: tuple[PodView, ...]) -> str:
    """Why pods do not start, in the words of the scheduler or the kubelet; empty when nothing is known."""
    for pod in pods:
        if pod.phase == "Pending" and not pod.terminating:
            if pod.unschedulable:
                return f"pod {pod.name} finds no node: {pod.unschedulable}"
            if pod.waiting:
                return f"pod {pod.name} does not start: {pod.waiting}"
    return ""
