"""Events of a training that runs: its group changed, it recovered, it has a first durable checkpoint."""

from __future__ import annotations

from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import TrainerStatus
from mizzen_operator.plan import Event


def news(before: TrainerStatus | None, now: TrainerStatus | None) -> tuple[Event, ...]:
    """What `kubectl describe` should tell; nothing that happens at every step."""
    if now is None:
        return ()
    before = before or TrainerStatus()
    found = (_recovered(before, now), _resized(before, now), _checkpointed(before, now))
    return tuple(event for event in found if event is not None)


def _recovered(before: TrainerStatus, now: TrainerStatus) -> Event | None:
    if now.restarts <= before.restarts or not now.workers:
        return None
    lost = now.lost_steps - before.lost_steps
    where = f"from step {now.resumed_from_step}" if now.resumed_from_step is not None else f"at step {now.step}"
    took = f" after {now.seconds_to_recover:.1f} s" if now.seconds_to_recover is not None else ""
    message = f"Training goes on {where} on {_workers(now.workers)}{took}; {lost} steps are done again"
    return Event("Normal", Reason.RECOVERED, message)


def _resized(before: TrainerStatus, now: TrainerStatus) -> Event | None:
    """From none to some is a start, to none an end or a pause."""
    if not before.workers or not now.workers or before.workers == now.workers:
        return None
    message = f"{_workers(before.workers)} became {now.workers} at step {now.step}"
    return Event("Normal", Reason.RESIZED, message)


def _checkpointed(before: TrainerStatus, now: TrainerStatus) -> Event | None:
    """The first alone: `status.trainerStatus.checkpointStep` has the others."""
    if before.checkpoint_step is not None or now.checkpoint_step is None:
        return None
    return Event("Normal", Reason.CHECKPOINTED, f"The first durable checkpoint is that of step {now.checkpoint_step}")


def _workers(count: int) -> str:
    return f"{count} worker" + ("s" if count != 1 else "")
