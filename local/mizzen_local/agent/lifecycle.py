"""The rules of a pod's life: from its spec and its containers to what to start, what to stop and its phase. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mizzen_local.agent.containers import Exit
from mizzen_local.client import Object


@dataclass(frozen=True)
class View:
    """How one container fares. `attempt` is -1 before its first start; `crashes` counts failures in a row."""

    name: str
    attempt: int = -1
    running: bool = False
    started_at: float = 0.0
    exit: Exit | None = None
    previous: Exit | None = None
    started: bool = False
    ready: bool = False
    crashes: int = 0
    waiting: tuple[str, str] | None = None  # (reason, message) when it cannot be started
    retry_at: float = 0.0  # epoch seconds before which it is not started again


@dataclass(frozen=True)
class Decision:
    phase: str
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    look_again: float | None = None  # epoch seconds
    initialized: bool = False
    reason: str = ""
    message: str = ""


def back_off(crashes: int, base: float, maximum: float) -> float:
    """The first restart is at once, then `base` doubling up to `maximum`."""
    return 0.0 if crashes <= 1 else min(base * 2.0 ** (crashes - 2), maximum)


def is_sidecar(container: Object) -> bool:
    return container.get("restartPolicy") == "Always"


def restarts(spec: Object, view: View) -> bool:
    """Whether an ended main container is started again."""
    policy = spec.get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and view.exit is not None and view.exit.code != 0)


class _Pass:
    """Collects one decision."""

    def __init__(self, now: float) -> None:
        self.now, self.start, self.stop = now, list[str](), list[str]()
        self.look_again: float | None = None

    def try_start(self, view: View) -> None:
        if view.retry_at <= self.now:
            self.start.append(view.name)
        else:
            self.later(view.retry_at)

    def later(self, moment: float) -> None:
        self.look_again = moment if self.look_again is None else min(self.look_again, moment)

    def decision(self, phase: str, *, initialized: bool = False, reason: str = "", message: str = "") -> Decision:
        return Decision(phase, tuple(self.start), tuple(self.stop), self.look_again, initialized, reason, message)


def decide(spec: Object, views: dict[str, View], pod_started_at: float, now: float) -> Decision:
    """What a pod that is not being deleted needs next."""
    step = _Pass(now)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        if now >= pod_started_at + deadline:
            step.stop = [v.name for v in views.values() if v.running]
            text = "Pod was active on the node longer than the specified deadline"
            return step.decision("Failed", reason="DeadlineExceeded", message=text)
        step.later(pod_started_at + deadline)
    initialized, failed = _initialize(spec, views, step)
    if failed:
        step.stop = [v.name for v in views.values() if v.running]
        return step.decision("Failed")
    mains = [views[c["name"]] for c in spec["containers"]]
    if not initialized:
        return step.decision("Running" if any(v.attempt >= 0 for v in mains) else "Pending")
    for view in mains:
        if not view.running and (view.exit is None or restarts(spec, view)):
            step.try_start(view)
    if all(v.exit is not None and not v.running and not restarts(spec, v) for v in mains):
        step.stop = [c["name"] for c in spec.get("initContainers") or [] if views[c["name"]].running]
        step.start = []
        good = all(v.exit is not None and v.exit.code == 0 for v in mains)
        return step.decision("Succeeded" if good else "Failed", initialized=True)
    created = all(v.attempt >= 0 for v in mains)
    return step.decision("Running" if created else "Pending", initialized=True)


def _initialize(spec: Object, views: dict[str, View], step: _Pass) -> tuple[bool, bool]:
    """(whether the main containers may run, whether an init container has failed for good)."""
    begun = any(views[c["name"]].attempt >= 0 for c in spec["containers"])
    for container in spec.get("initContainers") or []:
        view = views[container["name"]]
        if is_sidecar(container):
            if not view.running:
                step.try_start(view)
            if not (view.running and view.started) and not begun:
                return False, False
            continue
        if begun or (view.exit is not None and view.exit.code == 0 and not view.running):
            continue
        if view.exit is not None and not view.running and spec.get("restartPolicy", "Always") == "Never":
            return False, True
        if not view.running:
            step.try_start(view)
        return False, False
    return True, False
