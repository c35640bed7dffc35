"""From Kubernetes' JSON to the typed views of observed.py; the only place that knows the shape of children's status."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from mizzen_api import contract
from mizzen_api.workload import WorkloadConfig
from mizzen_operator.children.meta import stable_hash
from mizzen_operator.observed import DeploymentView, GatewayView, JobView, PodView, Refusal, RouteView, ServiceView
from mizzen_operator.plan import Manifest, Ref


def job(manifest: Manifest) -> JobView:
    conditions = _conditions(manifest)
    failed = conditions.get("Failed", {})
    annotations = _annotations(manifest)
    return JobView(
        ref=Ref.of(manifest),
        role=_labels(manifest).get(contract.LABEL_ROLE, ""),
        config_hash=annotations.get(contract.ANNOTATION_CONFIG_HASH, ""),
        generation=int(annotations.get(contract.ANNOTATION_GENERATION, 0)),
        complete=conditions.get("Complete", {}).get("status") == "True",
        failed=failed.get("status") == "True",
        reason=failed.get("reason", ""),
        message=failed.get("message", ""),
        backoff_limit=manifest["spec"].get("backoffLimit"),
        deadline=manifest["spec"].get("activeDeadlineSeconds"),
        ttl=manifest["spec"].get("ttlSecondsAfterFinished"),
        parallelism=manifest["spec"].get("parallelism"),
        asked=int(annotations[contract.ANNOTATION_WORKERS]) if contract.ANNOTATION_WORKERS in annotations else None,
        suspended=bool(manifest["spec"].get("suspend")),
    )


def pod(manifest: Manifest) -> PodView:
    meta, status = manifest["metadata"], manifest.get("status", {})
    conditions = _conditions(manifest)
    scheduled = conditions.get("PodScheduled", {})
    container: dict[str, Any] = next(iter(status.get("containerStatuses", [])), {})
    ended = _ended(container)
    return PodView(
        name=meta["name"],
        role=_labels(manifest).get(contract.LABEL_ROLE, ""),
        variant=_labels(manifest).get(contract.LABEL_VARIANT, ""),
        job=_controller(manifest),
        phase=status.get("phase", "Pending"),
        ip=status.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        scheduled=bool(manifest.get("spec", {}).get("nodeName")),
        terminating="deletionTimestamp" in meta,
        created=_moment(meta.get("creationTimestamp")),
        restarts=container.get("restartCount", 0),
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        waiting=_waiting(container),
        termination=ended.get("message", "") or status.get("message", ""),
        terminated=ended.get("reason", "") or status.get("reason", ""),
        exit_code=ended.get("exitCode"),
        ended_at=_moment(ended.get("finishedAt")),
        disrupted=_disrupted(conditions.get("DisruptionTarget", {})),
        model_uri=_annotations(manifest).get(contract.ANNOTATION_MODEL_URI, ""),
    )


def deployment(manifest: Manifest) -> DeploymentView:
    status = manifest.get("status", {})
    return DeploymentView(
        ref=Ref.of(manifest),
        variant=_labels(manifest).get(contract.LABEL_VARIANT, ""),
        model_uri=_annotations(manifest).get(contract.ANNOTATION_MODEL_URI, ""),
        replicas=manifest["spec"].get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        current=status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0),
    )


def service(manifest: Manifest) -> ServiceView:
    return ServiceView(Ref.of(manifest), _labels(manifest).get(contract.LABEL_VARIANT, ""))


def route(manifest: Manifest) -> RouteView:
    """Accepted, and with backends that resolve, by whichever gateway answered."""
    for parent in manifest.get("status", {}).get("parents", []):
        conditions = {c["type"]: c for c in parent.get("conditions", [])}
        bad = [c for kind in ("Accepted", "ResolvedRefs") if (c := conditions.get(kind)) and c["status"] == "False"]
        if bad:
            return RouteView(False, bad[0].get("message", "") or bad[0].get("reason", ""))
        if conditions.get("Accepted", {}).get("status") == "True":
            return RouteView(True)
    return RouteView()


def gateway(manifest: Manifest) -> GatewayView:
    addresses = manifest.get("status", {}).get("addresses", [])
    listeners = [li for li in manifest["spec"].get("listeners", []) if li.get("protocol") in {"HTTP", "HTTPS"}]
    listener: dict[str, Any] = min(listeners, key=lambda li: str(li["protocol"]), default={})
    return GatewayView(
        address=addresses[0]["value"] if addresses else "",
        port=listener.get("port", 80),
        scheme=str(listener.get("protocol", "HTTP")).lower(),
    )


def config(manifest: Manifest) -> WorkloadConfig | None:
    """None where somebody made it unreadable; it is then written anew."""
    try:
        return WorkloadConfig.model_validate_json(manifest.get("data", {}).get(contract.CONFIG_FILE, ""))
    except ValueError:
        return None


def refusal(events: Iterable[Manifest]) -> Refusal | None:
    """The newest word of a Job's controller on pods that it could not create."""
    failed = [event for event in events if event.get("reason") == "FailedCreate"]
    if not failed:
        return None
    newest = max(failed, key=_last_seen)
    message = str(newest.get("message", "")).removeprefix("Error creating: ")
    return Refusal(message, _moment(_last_seen(newest) or None))


def _last_seen(event: Manifest) -> str:
    """Events of the new kind have an eventTime, or a series; those of old a lastTimestamp. All are RFC 3339."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def fingerprint(config_map: Manifest) -> str:
    """Of the files in a ConfigMap."""
    return stable_hash([config_map.get("data") or {}, config_map.get("binaryData") or {}])


def extended_resources(nodes: Iterable[Manifest]) -> frozenset[str]:
    """What nodes that take pods offer besides CPU and memory."""
    return frozenset(
        name
        for node in nodes
        if not node.get("spec", {}).get("unschedulable")
        for name, amount in (node.get("status", {}).get("allocatable") or {}).items()
        if "/" in name and amount != "0"
    )


def owned(manifests: Iterable[Manifest], uid: str) -> list[Manifest]:
    """Those that this very resource made; a namesake before it may have left others that are being collected."""
    return [manifest for manifest in manifests if _controller(manifest) == uid]


def _controller(manifest: Manifest) -> str:
    owners = manifest["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _ended(container: dict[str, Any]) -> dict[str, Any]:
    state = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    return dict(state)


def _waiting(container: dict[str, Any]) -> str:
    waiting = container.get("state", {}).get("waiting") or {}
    if waiting.get("reason") in {None, "ContainerCreating", "PodInitializing"}:
        return ""
    return ": ".join(part for part in (waiting["reason"], waiting.get("message", "")) if part)


def _conditions(manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in manifest.get("status", {}).get("conditions") or []}


def _disrupted(condition: dict[str, Any]) -> str:
    if condition.get("status") != "True":
        return ""
    return str(condition.get("message") or condition.get("reason") or "DisruptionTarget")


def _labels(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("labels") or {}


def _annotations(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
