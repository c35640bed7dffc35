"""What the four kinds have in common: object metadata, references, conditions and the base of every model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SERVICE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"  # DNS-1035: stricter than what other objects may be named
# Kubernetes' own quantities, without a sign: nothing asks for less than nothing.
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
# package.module:attribute, as in setuptools' entry points.
ENTRYPOINT = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
# Names of children are made from names of resources; Job and Service names end at 63 characters.
MAX_NAME = 40
MAX_INT32 = 2**31 - 1  # what the API of Kubernetes takes for seconds and counts; seeds end here too

FreeForm = dict[str, Any]  # becomes an object that keeps unknown fields

# A measured value, in a status: five significant digits, for tables are read by people; MLflow has all of them.
Measured = Annotated[float, PlainSerializer(lambda value: float(f"{value:.5g}"), return_type=float)]


class ApiModel(BaseModel):
    """Camel case on the wire, snake case in Python. Unknown fields are the API server's to refuse, not ours."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", protected_namespaces=())

    def to_wire(self) -> dict[str, Any]:
        """JSON as the API server wants it: camel case, and nothing where nothing is said."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str]) -> ConfigDict:
    """Model configuration with CEL rules (`x-kubernetes-validations`): pairs of an expression and its message."""
    validations: list[Any] = [{"rule": rule, "message": message} for rule, message in pairs]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": validations})


class Condition(ApiModel):
    """One aspect of a resource's state, by the Kubernetes API conventions."""

    type: str = Field(description="Aspect of the state, in CamelCase.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="Why, as one CamelCase word of the kind's closed list.", max_length=1024)
    message: str = Field(description="What happened and what to do, for a person.", max_length=32768)
    last_transition_time: datetime = Field(description="When the status last changed.")
    observed_generation: int | None = Field(None, description="The metadata.generation that this condition is about.")


Conditions = Annotated[
    list[Condition],
    Field(
        description="The resource's state by aspect.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class Status(ApiModel):
    """What every status carries."""

    observed_generation: int | None = Field(None, description="The metadata.generation that this status is about.")
    conditions: Conditions = Field(default_factory=list)

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == kind), None)


class OwnerReference(ApiModel):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ApiModel):
    """The part of Kubernetes' ObjectMeta that planners read."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[OwnerReference] = Field(default_factory=list)


class LocalReference(ApiModel):
    """A resource in the same namespace."""

    name: str = Field(description="Name of a resource in the same namespace.", min_length=1, max_length=MAX_NAME)


class Resources(ApiModel):
    """Compute resources, asked for and limited alike."""

    cpu: str | None = Field(
        None, description="CPU as a Kubernetes quantity, for example 2 or 500m.", max_length=32, pattern=QUANTITY
    )
    memory: str | None = Field(
        None, description="Memory as a Kubernetes quantity, for example 4Gi.", max_length=32, pattern=QUANTITY
    )


class WorkerResources(Resources):
    """Compute resources of one worker of a training."""

    accelerators: int | None = Field(
        None, description="Accelerators of the job's kind; 1 unless it runs on CPUs.", ge=1, le=64
    )


class ConfigMapReference(ApiModel):
    """A ConfigMap in the same namespace."""

    name: str = Field(description="Name of a ConfigMap in the same namespace.", min_length=1, max_length=253)


class RunPolicy(ApiModel):
    """How a job runs and ends; the names are those of batch/v1 Job."""

    suspend: bool = Field(False, description="Stop the job's pods and keep its checkpoints; false resumes it.")
    backoff_limit: int = Field(
        3, description="How often the head is started anew before the job counts as failed.", ge=0, le=100
    )
    active_deadline_seconds: int | None = Field(
        None,
        description="Seconds after its start at which a running job is stopped and marked as failed.",
        ge=1,
        le=MAX_INT32,
    )
    ttl_seconds_after_finished: int | None = Field(
        None, description="Seconds after its end at which the finished resource is deleted.", ge=0, le=MAX_INT32
    )


class PrinterColumn(ApiModel):
    name: str
    type: Literal["string", "integer", "number", "date"] = "string"
    json_path: str
    priority: int = 0
    description: str | None = None


def ready_columns(*columns: PrinterColumn, condition: str = "Ready") -> Sequence[PrinterColumn]:
    """The kind's own columns between the state that everybody looks for first and the age."""
    path = f'.status.conditions[?(@.type=="{condition}")]'
    return (
        PrinterColumn(name=condition, json_path=f"{path}.status"),
        PrinterColumn(name="Reason", json_path=f"{path}.reason"),
        *columns,
        PrinterColumn(name="Message", json_path=f"{path}.message", priority=1),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )
