"""What can be said about a SearchJob or TrainingJob that has not ended: a list of rules, the first that applies speaks.

Upstream: raycluster.py, once the children are as they should be. Each rule is `(scene) -> (reason, message)` or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mizzen_api.conditions import Reason
from mizzen_api.contract import LABEL_QUEUE, ROLE_HEAD, ROLE_WORKERS
from mizzen_operator.crew import Crew
from mizzen_operator.observed import JobView, Observed, PodView
from mizzen_operator.plan import RayJob
from mizzen_operator.planners.failures import last_words, stuck
from mizzen_operator.planners.inputs import code_name

# A Job's controller tries again at least once a minute: what it said longer ago no longer holds.
REFUSAL_HOLDS = timedelta(seconds=150)
# How long a worker that was started again is news.
FAILURE_IS_NEWS = timedelta(seconds=60)

Said = tuple[Reason, str]


@dataclass(frozen=True)
class Scene:
    """One job at one moment."""

    job: RayJob
    observed: Observed
    crew: Crew
    now: datetime

    def pods(self, role: str) -> tuple[PodView, ...]:
        """Of the present Job; those of its predecessors may still be ending."""
        job = self.observed.job(role)
        return self.observed.pods_of_job(job) if job else ()

    @property
    def placed(self) -> int:
        """Workers that have a node."""
        return sum(pod.scheduled and pod.phase in {"Pending", "Running"} for pod in self.pods(ROLE_WORKERS))

    def missing(self, role: str) -> str:
        """Why pods of the role do not come or do not start; empty where nothing is known."""
        job = self.observed.job(role)
        return (_refused(job, self.now) if job else "") or stuck(self.pods(role))


def state(scene: Scene) -> Said:
    """The most telling of what can be said."""
    return next(said for said in (rule(scene) for rule in RULES) if said is not None)


def _being_created(scene: Scene) -> Said | None:
    return None if scene.observed.head else (Reason.PENDING, "The pods are being created")


def _queued(scene: Scene) -> Said | None:
    """Suspended by somebody else than the resource: Kueue holds the Jobs back, or has taken their quota away."""
    held = [job.ref.name for job in scene.observed.jobs if job.suspended]
    queue = scene.job.metadata.labels.get(LABEL_QUEUE)
    if not held:
        return None
    who = f"queue {queue!r} has not admitted" if queue else "somebody has suspended"
    return Reason.QUEUED, f"Nothing trains: {who} Job {' and Job '.join(held)}"


def _code_gone(scene: Scene) -> Said | None:
    name = code_name(scene.job)
    if not name or scene.observed.code is not None:
        return None
    return Reason.CODE_NOT_FOUND, f"ConfigMap {name!r} was deleted: pods cannot be started again until it is back"


def _head_stuck(scene: Scene) -> Said | None:
    why = scene.missing(ROLE_HEAD)
    return (Reason.PENDING, f"The head waits: {why}") if why else None


def _workers_missing(scene: Scene) -> Said | None:
    """Below minWorkers nothing trains, whether the reason is known or not."""
    least = scene.crew.least
    if scene.placed >= least:
        return None
    if why := scene.missing(ROLE_WORKERS):
        return Reason.WORKERS_PENDING, f"{scene.placed} of at least {least} workers have a place: {why}"
    if scene.observed.progress is None:
        return None
    message = f"{scene.placed} of at least {least} workers have a place: nothing runs until the others are there"
    return Reason.WORKERS_PENDING, message


def _workers_failing(scene: Scene) -> Said | None:
    """Workers that were started again a moment ago, or wait for it; the kubelet restarts them with back-off."""
    failing = [pod for pod in scene.pods(ROLE_WORKERS) if _failed_lately(pod, scene.now)]
    if not failing:
        return None
    worst = max(failing, key=lambda pod: pod.restarts)
    times = f"{worst.restarts} times" if worst.restarts > 1 else "once"
    why = last_words(worst, scene.crew.resources_field)
    return (
        Reason.WORKERS_FAILING,
        f"{len(failing)} of {scene.crew.most} workers failed and start again. {worst.name}, {times}: {why}",
    )


def _head_failed_before(scene: Scene) -> Said | None:
    """Attempts are those that count against the backoffLimit; a pod that was taken away is none."""
    failed = [pod for pod in scene.pods(ROLE_HEAD) if pod.phase == "Failed"]
    if not failed or scene.observed.progress is not None:
        return None
    if failed[-1].taken_away:
        why = failed[-1].disrupted or "it was told to stop"
        return Reason.RUNNING, f"The head was taken off its node ({why}); the run goes on from the newest checkpoint"
    limit = scene.job.spec.run_policy.backoff_limit
    attempt = 1 + sum(not pod.taken_away for pod in failed)
    return Reason.RUNNING, f"Attempt {attempt} of {limit + 1}; the last failed: {last_words(failed[-1])}"


def _head_starting(scene: Scene) -> Said | None:
    if any(pod.phase == "Running" for pod in scene.pods(ROLE_HEAD)):
        return None
    return Reason.PENDING, "The head is starting"


def _running(scene: Scene) -> Said | None:
    """The driver's words, and why there are fewer workers than there might be."""
    progress = scene.observed.progress
    why = scene.missing(ROLE_WORKERS) if scene.placed < scene.crew.most else ""
    fewer = f"; {scene.placed} of {scene.crew.most} workers have a place: {why}" if why else ""
    if progress is None or progress.message:
        return Reason.RUNNING, (progress.message if progress else "Running") + fewer
    done = [part.progress_percentage for part in (progress.search,) if part]
    done += [part.trainer_status.progress_percentage for part in (progress.training,) if part]
    return Reason.RUNNING, (f"{done[0]} % done" if done else "Running") + fewer


RULES: tuple[Callable[[Scene], Said | None], ...] = (
    _being_created,
    _queued,
    _code_gone,
    _head_stuck,
    _workers_missing,
    _workers_failing,
    _head_failed_before,
    _head_starting,
    _running,
)


def _refused(job: JobView, now: datetime) -> str:
    refusal = job.refusal
    if refusal is None or (refusal.at is not None and now - refusal.at > REFUSAL_HOLDS):
        return ""
    return f"the cluster refuses pods of Job {job.ref.name}: {refusal.message}"


def _failed_lately(pod: PodView, now: datetime) -> bool:
    if pod.terminating or pod.taken_away or not pod.exit_code:
        return False
    return bool(pod.waiting) or (pod.ended_at is not None and now - pod.ended_at <= FAILURE_IS_NEWS)
