"""What the operator tells a workload (ConfigMap) and what it answers (`GET /progress`, termination message)."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from mizzen_api.conditions import USER_ERRORS, Reason
from mizzen_api.contract import TERMINATION_LOG_LIMIT
from mizzen_api.dataset import DatasetSpec, DriftStatus, Engine, ExpectationCounts
from mizzen_api.meta import ApiModel, FreeForm
from mizzen_api.searchjob import SearchJobSpec, Trial, TrialCounts
from mizzen_api.trainingjob import ModelVersion, TrainerStatus, TrainingJobSpec

_GIST = 500  # characters of a message that are worth more than the names of classes


class ResolvedDataset(ApiModel):
    """The version of a Dataset that a job runs on."""

    name: str
    uri: str
    fingerprint: str
    version: int = 1


class DriftReference(ApiModel):
    """The version that a new one is compared with, and whose schema it must keep."""

    uri: str
    name: str


class LiveReference(ApiModel):
    """A ModelService whose requests a new version is compared with."""

    name: str
    addresses: list[str] = Field(default_factory=list)  # host:port of the servers that are ready now


class NewestVersion(ApiModel):
    """The version that the status names; one with another fingerprint is the next."""

    version: int
    fingerprint: str


class ResolvedModel(ApiModel):
    """One of a model by name, a registered version and an import path; `lr` in config belongs to the trainer."""

    name: str = ""
    uri: str = ""  # models:/NAME/VERSION; an alias is resolved when the job begins
    entrypoint: str = ""  # package.module:name
    config: FreeForm = Field(default_factory=dict)


class RayCluster(ApiModel):
    """How the head and its workers find each other."""

    address: str  # host:port of the head's GCS
    workers: int  # pods that were asked for


class WorkloadConfig(ApiModel):
    """`config.json` of a workload pod. Exactly one of the three specs is set, by kind.

    While a training runs, the mounted file follows edits of `scaling.minWorkers` and `scaling.maxWorkers`, as late as
    kubelets renew their ConfigMaps (up to a minute or two); any other edit starts the pods anew.
    """

    kind: Literal["Dataset", "SearchJob", "TrainingJob"]
    namespace: str
    name: str
    uid: str
    generation: int = 1
    artifacts_uri: str  # root of the artifact store, for example file:///artifacts
    run_uri: str = ""  # folder of this resource's checkpoints
    mlflow_uri: str = ""
    dataset_spec: DatasetSpec | None = None
    search_spec: SearchJobSpec | None = None
    training_spec: TrainingJobSpec | None = None
    previous: DriftReference | None = None  # the Dataset's own newest version: its schema is a contract
    reference: DriftReference | None = None  # what drift is measured against
    live_reference: LiveReference | None = None  # the same, where it is traffic
    newest: NewestVersion | None = None  # of a Dataset
    dataset: ResolvedDataset | None = None
    model: ResolvedModel | None = None
    accelerator: str = "cpu"  # a row of accelerators.TABLE, by vendor
    code_fingerprint: str = ""  # of the user's files in CODE_DIR
    resolved_uris: dict[str, str] = Field(default_factory=dict)  # models:/NAME@ALIAS: the version as the job began
    ray: RayCluster | None = None


class DatasetReport(ApiModel):
    """What a materialisation found and made; fingerprint, uri and classes only once it is published."""

    progress_percentage: int = 0
    rows: int = 0
    fingerprint: str | None = None
    uri: str | None = None
    classes: list[str] = Field(default_factory=list)
    classes_left_out: int = 0  # of a termination message; the version's manifest.json has all
    bad_rows: int = 0
    dropped_rows: int = 0
    rows_per_second: float | None = None
    expectations: ExpectationCounts | None = None
    drift: DriftStatus | None = None
    drift_note: str = ""  # why drift could not be measured
    engine: Engine | None = None
    mlflow_run: str | None = None
    mlflow_note: str = ""  # why the report is not in MLflow


class SearchReport(ApiModel):
    trials: TrialCounts = Field(TrialCounts())
    current_optimal_trial: Trial | None = None
    model: str | None = None
    progress_percentage: int = 0


class TrainingReport(ApiModel):
    trainer_status: TrainerStatus = Field(TrainerStatus())
    model_version: ModelVersion | None = None


class Progress(ApiModel):
    """The one document that a workload speaks: while it runs over HTTP, at its end as the termination message."""

    state: Literal["Running", "Succeeded", "Failed"] = "Running"
    reason: Reason = Reason.RUNNING
    message: str = ""
    dataset: DatasetReport | None = None
    search: SearchReport | None = None
    training: TrainingReport | None = None

    @property
    def retryable(self) -> bool:
        return self.state == "Failed" and self.reason not in USER_ERRORS

    @model_serializer(mode="wrap")
    def _sayable(self, handler: SerializerFunctionWrapHandler) -> Any:
        """JSON has no NaN and no infinity. As null they would make the whole document unreadable."""
        return _finite(handler(self))

    def to_termination_message(self) -> str:
        """JSON of at most 4 KiB. The end of the message goes first, then classes, then all but how it ended."""
        message = self.message
        while True:
            text = self._with_classes_that_fit(message)
            if len(text.encode()) <= TERMINATION_LOG_LIMIT:
                return text
            if not message:
                break
            message = message[: len(message) // 2]  # escapes make the length on the wire hard to foretell
        bare = Progress(state=self.state, reason=self.reason, message="the report was too long to be kept")
        return bare.model_dump_json(by_alias=True, exclude_none=True)

    def _with_classes_that_fit(self, message: str) -> str:
        """As few classes are left out as possible, and none as long as there is more message than the gist."""
        dataset, every = self.dataset, self._text(message)
        if dataset is None or len(message) > _GIST or len(every.encode()) <= TERMINATION_LOG_LIMIT:
            return every
        counts = range(len(dataset.classes))
        fitting = bisect_right(counts, TERMINATION_LOG_LIMIT, key=lambda n: len(self._text(message, n).encode()))
        return self._text(message, max(0, fitting - 1))

    def _text(self, message: str, classes: int | None = None) -> str:
        changes: dict[str, Any] = {}
        if message != self.message:
            changes["message"] = message + "…"
        if self.dataset is not None and classes is not None:
            kept = self.dataset.classes[:classes]
            left_out = len(self.dataset.classes) - classes
            changes["dataset"] = self.dataset.model_copy(update={"classes": kept, "classes_left_out": left_out})
        return self.model_copy(update=changes).model_dump_json(by_alias=True, exclude_none=True)

    @classmethod
    def from_termination_message(cls, text: str) -> Progress | None:
        """None where the container died without a word (or with another's)."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None


def _finite(value: Any) -> Any:
    """The document without the numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items() if _said(item)}
    if isinstance(value, list):
        return [_finite(item) for item in value if _said(item)]
    return value


def _said(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
