"""ModelService: one model or several variants of it behind one address, scaled, split by weight and watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mizzen_api.contract import API_VERSION
from mizzen_api.meta import DNS_LABEL, ApiModel, ObjectMeta, PrinterColumn, Resources, Status, ready_columns, rules

PREDICTOR = "predictor"  # name of the main variant


class ModelReference(ApiModel):
    """A version in the registry."""

    uri: str = Field(
        description="models:/NAME/VERSION, or models:/NAME@ALIAS, which is followed when the alias moves.",
        pattern=r"^models:/[^/@]+(/[0-9]+|@[A-Za-z0-9_.-]+)$",
        max_length=256,
    )


class Batcher(ApiModel):
    """Requests that run together."""

    max_batch_size: int = Field(32, description="Rows of one run of the model at most.", ge=1, le=4096)
    max_latency_ms: float = Field(5, description="How long the first row of a batch waits for others.", ge=0, le=10000)


class Predictor(ApiModel):
    """A model and the pods that serve it."""

    model_config = rules(("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas"))

    model: ModelReference = Field(description="The model to serve.")
    min_replicas: int = Field(1, description="Pods at least.", ge=1, le=1000)
    max_replicas: int = Field(1, description="Pods at most.", ge=1, le=1000)
    scale_target: int = Field(4, description="Queued and running requests for each ready pod.", ge=1, le=10000)
    batcher: Batcher = Field(Batcher(), description="Requests that run together.")
    resources: Resources = Field(Resources(cpu="500m", memory="1Gi"), description="Compute of each pod.")


class Canary(ApiModel):
    """Another variant that gets a part of the requests."""

    name: str = Field(description="Name of the variant.", pattern=DNS_LABEL, max_length=15)
    traffic_percent: int = Field(description="Part of the requests, in percent.", ge=0, le=100)
    predictor: Predictor = Field(description="The variant's model and pods.")


MAX_CANARIES = 4
# Kubernetes' own sum() is not in every CEL library; four terms are.
_CANARY_SUM = " + ".join(f"(size(self) > {i} ? self[{i}].trafficPercent : 0)" for i in range(MAX_CANARIES))


class ModelServiceSpec(ApiModel):
    """The wanted service."""

    predictor: Predictor = Field(description="The main variant; it gets what the canaries leave.")
    canary: list[Canary] = Field(
        default_factory=list,
        description="Variants that get a part of the requests.",
        max_length=MAX_CANARIES,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-validations": [
                {"rule": f"{_CANARY_SUM} <= 100", "message": "the trafficPercent of all canaries must not exceed 100"},
                {"rule": "self.all(c, c.name != 'predictor')", "message": "predictor is the main variant's name"},
            ],
        },
    )


class VariantStatus(ApiModel):
    """One variant as it runs."""

    name: str = Field(description="predictor, or the canary's name.")
    model_uri: str | None = Field(None, description="The version that the pods serve: models:/NAME/VERSION.")
    ready_replicas: int = Field(0, description="Pods that answer.")
    replicas: int = Field(0, description="Pods that are wanted.")
    traffic_percent: int = Field(0, description="Part of the requests, in percent.")
    requests: int = Field(0, description="Requests answered by the present pods.")


class ModelServiceStatus(Status):
    """Where the service answers, and how its variants are."""

    url: str | None = Field(None, description="Address of the service through the gateway.")
    variants: list[VariantStatus] = Field(default_factory=list, description="The variants as they run.")


class ModelService(ApiModel):
    """A watched, autoscaled inference service with weighted variants."""

    KIND: ClassVar[Literal["ModelService"]] = "ModelService"
    PLURAL: ClassVar[str] = "modelservices"
    SHORT_NAMES: ClassVar[list[str]] = ["mms"]
    COLUMNS: ClassVar[Sequence[PrinterColumn]] = ready_columns(
        PrinterColumn(name="Model", json_path=".status.variants[0].modelUri"),
        PrinterColumn(name="URL", json_path=".status.url"),
    )

    api_version: Literal["mizzen.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelService"] = "ModelService"
    metadata: ObjectMeta
    spec: ModelServiceSpec
    status: ModelServiceStatus = Field(default_factory=ModelServiceStatus)
