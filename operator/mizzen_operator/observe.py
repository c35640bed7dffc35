"""Reads everything that a planner may look at: children, dependencies, what pods tell, what the registry answers."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace

from pydantic import ValidationError

from mizzen_api import Dataset, ModelService, SearchJob, TrainingJob
from mizzen_api.accelerators import CPU
from mizzen_api.contract import (
    API_VERSION,
    ARTIFACTS_CLAIM,
    LABEL_KIND,
    LABEL_NAME,
    LABEL_ROLE,
    PORT_PROGRESS,
    ROLE_HEAD,
    ROLE_MATERIALIZE,
    ROLE_SERVER,
)
from mizzen_api.workload import Progress, WorkloadConfig
from mizzen_operator import names, trouble, views
from mizzen_operator.children.httproute import API_VERSION as ROUTE_API
from mizzen_operator.children.materialize import secrets_of
from mizzen_operator.interfaces import Cluster, Registry, Workloads
from mizzen_operator.observed import GatewayView, JobView, ModelAnswer, Observed, PodView, RouteView, Traffic
from mizzen_operator.plan import Key, Manifest, Memory, RayJob, Ref, Resource
from mizzen_operator.planners import inputs, reading
from mizzen_operator.settings import Settings

MODELS: dict[str, type[Dataset] | type[SearchJob] | type[TrainingJob] | type[ModelService]] = {
    kind.KIND: kind for kind in (Dataset, SearchJob, TrainingJob, ModelService)
}


@dataclass(frozen=True)
class Observer:
    """Reads only."""

    cluster: Cluster
    workloads: Workloads
    registry: Registry
    settings: Settings

    async def resource(self, key: Key) -> Resource | None:
        """None once it is gone or going: its children are the garbage collector's.

        InvalidResource where it is not what its model says: the API server checks less, or another version of it.
        """
        found = await self.cluster.get(Ref(API_VERSION, key.kind, key.namespace, key.name))
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        try:
            resource: Resource = MODELS[key.kind].model_validate(found)
        except ValidationError as error:
            raise trouble.invalid(key, error) from error
        return resource

    async def observe(self, resource: Resource, memory: Memory) -> Observed:
        if isinstance(resource, Dataset):
            return await self._dataset(resource)
        if isinstance(resource, ModelService):
            return await self._service(resource, memory)
        return await self._ray_job(resource)

    # Jobs are read before their pods: of an ended Job the pods then show how they ended.

    async def _dataset(self, dataset: Dataset) -> Observed:
        jobs = await self._children(dataset, "batch/v1", "Job")
        pods = await self._pods(dataset)
        configs = await self._children(dataset, "v1", "ConfigMap")
        return Observed(
            dataset=await self._reference(dataset),
            jobs=tuple(map(views.job, jobs)),
            pods=pods,
            configs=tuple(map(Ref.of, configs)),
            progress=await self._progress(pods, ROLE_MATERIALIZE),
            has_token=await self._has_token(dataset),
            fresh_token=secrets.token_hex(32),
            has_claim=await self._claim(dataset.metadata.namespace),
            missing_secrets=await self._missing_secrets(dataset),
            servers=await self._servers(dataset),
        )

    async def _missing_secrets(self, dataset: Dataset) -> tuple[str, ...]:
        """Of the sources, and of the store: for the first the kubelet would wait without a word in the pod's status."""
        store = {self.settings.datasets_secret} - {""}
        names = sorted({name for name, _ in secrets_of(dataset)} | store)
        found = [await self.cluster.get(Ref("v1", "Secret", dataset.metadata.namespace, name)) for name in names]
        return tuple(name for name, secret in zip(names, found, strict=True) if secret is None)

    async def _has_token(self, dataset: Dataset) -> bool:
        if dataset.spec.engine == "polars":
            return False
        return await self._child(dataset, "Secret", names.token(dataset.kind, dataset.metadata.name)) is not None

    async def _servers(self, dataset: Dataset) -> tuple[str, ...]:
        """Where the ModelService that drift is measured against answers now, whichever variant it is."""
        name = reading.service_name(dataset)
        if name is None:
            return ()
        labels = {LABEL_KIND: ModelService.KIND, LABEL_NAME: name, LABEL_ROLE: ROLE_SERVER}
        pods = [views.pod(found) for found in await self.cluster.list("v1", "Pod", dataset.metadata.namespace, labels)]
        return tuple(
            sorted(f"{pod.ip}:{PORT_PROGRESS}" for pod in pods if pod.ready and pod.ip and not pod.terminating)
        )

    async def _reference(self, dataset: Dataset) -> Dataset | None:
        """The other Dataset that drift is measured against, where one is named."""
        name = reading.reference_name(dataset)
        if name is None:
            return None
        found = await self.resource(Key("Dataset", dataset.metadata.namespace, name))
        return found if isinstance(found, Dataset) else None

    async def _ray_job(self, job: RayJob) -> Observed:
        meta = job.metadata
        jobs = await self._children(job, "batch/v1", "Job")
        pods = await self._pods(job)
        found = await self._child(job, "ConfigMap", names.config(job.kind, meta.name))
        config = views.config(found) if found else None
        token = await self._child(job, "Secret", names.token(job.kind, meta.name))
        dataset = await self.resource(Key("Dataset", meta.namespace, job.spec.dataset_ref.name))
        pinned = config if config is not None and config.uid == meta.uid else None
        return Observed(
            dataset=dataset if isinstance(dataset, Dataset) else None,
            search_job=await self._search_job(job),
            config=config,
            jobs=tuple([await self._refused(views.job(each), pods) for each in jobs]),
            pods=pods,
            progress=await self._progress(pods, ROLE_HEAD),
            has_token=token is not None,
            fresh_token=secrets.token_hex(32),
            has_claim=await self._claim(meta.namespace),
            code=await self._code(job),
            offers=await self._offers(job, pinned),
            models=await self._resolve(inputs.model_uris(job) - set(pinned.resolved_uris if pinned else ())),
        )

    async def _refused(self, job: JobView, pods: tuple[PodView, ...]) -> JobView:
        """With the reason why pods are missing, which a Job's controller tells in events alone."""
        alive = sum(pod.job == job.ref.uid and pod.phase in {"Pending", "Running"} for pod in pods)
        if job.ended or job.suspended or alive >= (1 if job.parallelism is None else job.parallelism):
            return job
        return replace(job, refusal=views.refusal(await self.cluster.events_about(job.ref)))

    async def _code(self, job: RayJob) -> str | None:
        name = inputs.code_name(job)
        found = await self.cluster.get(Ref("v1", "ConfigMap", job.metadata.namespace, name)) if name else None
        return views.fingerprint(found) if found else None

    async def _offers(self, job: RayJob, pinned: WorkloadConfig | None) -> frozenset[str]:
        """Asked of the nodes once, when the job begins: afterwards its configuration says what it runs on."""
        settings = self.settings
        told = settings.accelerators or settings.watch_namespaces or pinned is not None
        if told or not isinstance(job, TrainingJob) or job.spec.accelerator == CPU.kind:
            return frozenset()
        return views.extended_resources(await self.cluster.nodes())

    async def _search_job(self, job: RayJob) -> SearchJob | None:
        if not isinstance(job, TrainingJob) or job.spec.model.search_job_ref is None:
            return None
        found = await self.resource(Key("SearchJob", job.metadata.namespace, job.spec.model.search_job_ref.name))
        return found if isinstance(found, SearchJob) else None

    async def _service(self, service: ModelService, memory: Memory) -> Observed:
        gateway_api = await self.cluster.serves(ROUTE_API)
        pods = await self._pods(service)
        return Observed(
            deployments=tuple(map(views.deployment, await self._children(service, "apps/v1", "Deployment"))),
            services=tuple(map(views.service, await self._children(service, "v1", "Service"))),
            pods=pods,
            gateway_api=gateway_api,
            gateway=await self._gateway() if gateway_api else None,
            route=await self._route(service) if gateway_api else None,
            models=await self._models(service),
            traffic=await self._traffic(pods),
            memory=memory,
        )

    async def _children(self, resource: Resource, api_version: str, kind: str) -> list[Manifest]:
        meta = resource.metadata
        labels = {LABEL_KIND: resource.kind, LABEL_NAME: meta.name}
        return views.owned(await self.cluster.list(api_version, kind, meta.namespace, labels), meta.uid)

    async def _child(self, resource: Resource, kind: str, name: str) -> Manifest | None:
        found = await self.cluster.get(Ref("v1", kind, resource.metadata.namespace, name))
        return found if found and views.owned([found], resource.metadata.uid) else None

    async def _pods(self, resource: Resource) -> tuple[PodView, ...]:
        """By label: pods belong to Jobs and ReplicaSets, not to the resource."""
        meta = resource.metadata
        labels = {LABEL_KIND: resource.kind, LABEL_NAME: meta.name}
        return tuple(views.pod(found) for found in await self.cluster.list("v1", "Pod", meta.namespace, labels))

    async def _claim(self, namespace: str) -> bool:
        if not self.settings.uses_claim:
            return False
        return await self.cluster.get(Ref("v1", "PersistentVolumeClaim", namespace, ARTIFACTS_CLAIM)) is not None

    async def _progress(self, pods: tuple[PodView, ...], role: str) -> Progress | None:
        running = [p for p in pods if p.role == role and p.phase == "Running" and p.ip and not p.terminating]
        return await self.workloads.progress(running[-1].ip) if running else None

    async def _traffic(self, pods: tuple[PodView, ...]) -> dict[str, Traffic]:
        ready = [pod for pod in pods if pod.ready and pod.ip]
        answers = await asyncio.gather(*(self.workloads.traffic(pod.ip) for pod in ready))
        return {pod.name: answer for pod, answer in zip(ready, answers, strict=True) if answer is not None}

    async def _gateway(self) -> GatewayView | None:
        namespace, _, name = self.settings.gateway.rpartition("/")
        if not name:
            return None
        found = await self.cluster.get(Ref(ROUTE_API, "Gateway", namespace, name))
        return views.gateway(found) if found else None

    async def _route(self, service: ModelService) -> RouteView | None:
        meta = service.metadata
        found = await self.cluster.get(Ref(ROUTE_API, "HTTPRoute", meta.namespace, meta.name))
        return views.route(found) if found else None

    async def _models(self, service: ModelService) -> dict[str, ModelAnswer]:
        return await self._resolve(
            {p.model.uri for p in (service.spec.predictor, *(c.predictor for c in service.spec.canary))}
        )

    async def _resolve(self, uris: set[str]) -> dict[str, ModelAnswer]:
        ordered = sorted(uris)
        return dict(zip(ordered, await asyncio.gather(*map(self.registry.resolve, ordered)), strict=True))
