"""Plays users, controllers and kubelets around the operator's loop, so that examples run without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mizzen_api.conditions import Reason
from mizzen_api.contract import LABEL_KIND, LABEL_NAME, LABEL_ROLE, ROLE_WORKERS
from mizzen_api.searchjob import Trial, TrialCounts
from mizzen_api.trainingjob import ModelVersion, TrainerStatus
from mizzen_api.workload import DatasetReport, Progress, SearchReport, TrainingReport, WorkloadConfig
from mizzen_operator.handlers import needs
from mizzen_operator.loop import Dependencies, Loop
from mizzen_operator.observe import MODELS, Observer
from mizzen_operator.observed import Found
from mizzen_operator.plan import Key, Manifest, Ref
from mizzen_operator.reconcile import Reconciler
from mizzen_operator.testing import InMemoryCluster, InMemoryRegistry, InMemoryWorkloads
from tests.operator.builders import SETTINGS

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "mizzen", "namespace": "mizzen-system"},
    "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 8000}]},
    "status": {"addresses": [{"value": "10.0.0.9"}]},
}


class Simulation:
    """The operator's loop on an in-memory cluster whose Jobs end well and whose Deployments become ready."""

    def __init__(self) -> None:
        self.cluster, self.workloads, self.registry = InMemoryCluster(), InMemoryWorkloads(), InMemoryRegistry()
        observer = Observer(self.cluster, self.workloads, self.registry, SETTINGS)
        self.reconciler = Reconciler(self.cluster, observer, SETTINGS)
        self.loop, self.dependencies = Loop(self.reconciler.reconcile), Dependencies()
        self.watchers: list[asyncio.Event] = []
        self.play: Callable[[Manifest], None] = self.controllers
        self.cluster.on_change = self.changed
        self.cluster.create(GATEWAY)

    def apply(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.yaml")):
            for manifest in yaml.safe_load_all(path.read_text()):
                self.cluster.create(manifest)

    def changed(self, manifest: Manifest) -> None:
        """The watch: as handlers.py does, and then the controllers' turn."""
        meta = manifest["metadata"]
        key = Key(manifest["kind"], meta["namespace"], meta["name"])
        if key.kind in MODELS:
            self.dependencies.record(key, needs(key, manifest))
            for woken in (key, *self.dependencies.dependents(key)):
                self.loop.enqueue(woken)
        elif LABEL_NAME in meta.get("labels", {}):
            self.loop.enqueue(Key(meta["labels"][LABEL_KIND], meta["namespace"], meta["labels"][LABEL_NAME]))
        for watcher in self.watchers:
            watcher.set()
        asyncio.get_running_loop().call_soon(self.play, manifest)

    async def until(self, reached: Callable[[], bool], seconds: float = 10) -> None:
        """Looks whenever something changed."""
        watcher = asyncio.Event()
        self.watchers.append(watcher)
        async with asyncio.timeout(seconds):
            while not reached():
                await watcher.wait()
                watcher.clear()

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        conditions = self.cluster.one(kind, name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == condition), {"status": "", "reason": "", "message": ""})

    # Controllers

    def controllers(self, manifest: Manifest) -> None:
        kind = manifest["kind"]
        if kind == "Job" and "status" not in manifest:
            self.run_job(manifest)
        elif kind == "Deployment":
            self.run_deployment(manifest)
        elif kind == "HTTPRoute":
            accepted = {"conditions": [{"type": "Accepted", "status": "True"}]}
            self.cluster.set_status(Ref.of(manifest), {"parents": [accepted]})

    def run_job(self, job: Manifest) -> None:
        """Workers run on; everything else ends at once and well."""
        if job["metadata"]["labels"][LABEL_ROLE] == ROLE_WORKERS:
            self.cluster.set_status(Ref.of(job), {"active": 1})
            self.pod(job, "0", {"phase": "Running", "podIP": "10.1.0.2"})
            return
        ended = {"exitCode": 0, "message": self.report(job).to_termination_message()}
        self.pod(job, "0", {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": ended}}]})
        self.cluster.set_status(Ref.of(job), {"conditions": [{"type": "Complete", "status": "True"}]})

    def report(self, job: Manifest) -> Progress:
        volumes = job["spec"]["template"]["spec"]["volumes"]
        name = next(volume["configMap"]["name"] for volume in volumes if "configMap" in volume)
        config = WorkloadConfig.model_validate_json(self.cluster.one("ConfigMap", name)["data"]["config.json"])
        done = Progress(state="Succeeded", reason=Reason.SUCCEEDED, message="done")
        if config.kind == "Dataset":
            uri = f"{config.artifacts_uri}/datasets/{config.namespace}/{config.name}/aa"
            return done.model_copy(update={"dataset": DatasetReport(rows=9, fingerprint="sha256:aa", uri=uri)})
        if config.kind == "SearchJob":
            best = Trial(name="t", parameters={"embedding_dim": 64}, metrics={"accuracy": 0.8})
            counts = TrialCounts(succeeded=4)
            report = SearchReport(trials=counts, current_optimal_trial=best, model="text-transformer")
            return done.model_copy(update={"search": report})
        assert config.training_spec
        wanted = config.training_spec.register_
        uri = f"models:/{wanted.name}/{len(self.registry.answers) + 1}"
        self.registry.answers[f"models:/{wanted.name}@{wanted.alias}"] = Found(uri)
        self.loop.enqueue(Key("ModelService", "default", "tweets"))
        version = ModelVersion(name=wanted.name, version=len(self.registry.answers), uri=uri)
        trainer = TrainerStatus(progress_percentage=100)
        return done.model_copy(update={"training": TrainingReport(trainer_status=trainer, model_version=version)})

    def run_deployment(self, deployment: Manifest) -> None:
        count = deployment["spec"]["replicas"]
        for number in range(count):
            ready = [{"type": "Ready", "status": "True"}]
            self.pod(deployment, str(number), {"phase": "Running", "podIP": f"10.2.0.{number}", "conditions": ready})
        generation = deployment["metadata"]["generation"]
        status = {"observedGeneration": generation, "readyReplicas": count, "updatedReplicas": count}
        self.cluster.set_status(Ref.of(deployment), status)

    def pod(self, owner: Manifest, suffix: str, status: dict[str, Any]) -> None:
        template, meta = owner["spec"]["template"], owner["metadata"]
        reference = {"kind": owner["kind"], "uid": meta["uid"], "name": meta["name"], "controller": True}
        self.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **template["metadata"],
                    "name": f"{meta['name']}-{suffix}",
                    "namespace": meta["namespace"],
                    "ownerReferences": [reference],
                },
                "spec": {"nodeName": "node"},
                "status": status,
            }
        )
