"""The closed lists: condition types, and the reasons that each kind's conditions may carry."""

from enum import StrEnum


class ConditionType(StrEnum):
    READY = "Ready"  # Dataset, ModelService: it can be used
    SUCCEEDED = "Succeeded"  # SearchJob, TrainingJob: Unknown while it runs, then True or False
    REFRESHED = "Refreshed"  # Dataset: the last scheduled reading; Unknown while it runs
    DRIFT_MEASURED = "DriftMeasured"  # Dataset: the newest version was compared with its reference
    PROGRESSING = "Progressing"  # ModelService: a roll-out is under way


class Reason(StrEnum):
    """One word for why a condition is as it is. User errors end a job; system errors are tried again."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_NOT_READY = "DatasetNotReady"
    SEARCH_JOB_NOT_FOUND = "SearchJobNotFound"
    SEARCH_JOB_NOT_FINISHED = "SearchJobNotFinished"
    MODEL_NOT_FOUND = "ModelNotFound"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    WORKERS_PENDING = "WorkersPending"
    WORKERS_FAILING = "WorkersFailing"
    QUEUED = "Queued"
    CODE_NOT_FOUND = "CodeNotFound"
    # Dataset
    MATERIALIZING = "Materializing"
    MATERIALIZED = "Materialized"
    SOURCE_UNREADABLE = "SourceUnreadable"
    SOURCE_EMPTY = "SourceEmpty"
    SOURCE_MALFORMED = "SourceMalformed"
    COLUMN_MISSING = "ColumnMissing"
    EXPECTATION_FAILED = "ExpectationFailed"
    SCHEMA_BROKEN = "SchemaBroken"
    DRIFTED = "Drifted"
    REFRESHING = "Refreshing"
    UNCHANGED = "Unchanged"
    MEASURED = "Measured"
    REFERENCE_UNAVAILABLE = "ReferenceUnavailable"
    # SearchJob, TrainingJob
    INVALID_PARAMETERS = "InvalidParameters"
    TRIALS_FAILED = "TrialsFailed"
    GOAL_REACHED = "GoalReached"
    GATE_FAILED = "GateFailed"
    TRAINING_DIVERGED = "TrainingDiverged"
    ARTIFACTS_FORBIDDEN = "ArtifactsForbidden"
    RESIZED = "Resized"
    RECOVERED = "Recovered"
    CHECKPOINTED = "Checkpointed"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    SPEC_CHANGED = "SpecChanged"
    INTERNAL_ERROR = "InternalError"
    # ModelService
    DEPLOYING = "Deploying"
    AVAILABLE = "Available"
    MODEL_UNLOADABLE = "ModelUnloadable"
    REPLICAS_UNAVAILABLE = "ReplicasUnavailable"
    GATEWAY_NOT_READY = "GatewayNotReady"


# What no retry cures: the user must change something. All others are worth another try.
USER_ERRORS = frozenset(
    {
        Reason.SOURCE_UNREADABLE,
        Reason.SOURCE_EMPTY,
        Reason.SOURCE_MALFORMED,
        Reason.COLUMN_MISSING,
        Reason.EXPECTATION_FAILED,
        Reason.SCHEMA_BROKEN,
        Reason.DRIFTED,
        Reason.INVALID_PARAMETERS,
        Reason.GATE_FAILED,
        Reason.TRIALS_FAILED,
        Reason.TRAINING_DIVERGED,
        Reason.ARTIFACTS_FORBIDDEN,
    }
)
