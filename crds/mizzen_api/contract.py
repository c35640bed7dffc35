"""Every name that two packages share: labels, ports, environment variables, files, images and metrics."""

from typing import Final, Literal

GROUP = "mizzen.dev"
VERSION = "v1alpha1"
API_VERSION: Final[Literal["mizzen.dev/v1alpha1"]] = "mizzen.dev/v1alpha1"

# Labels, on every child. The four of app.kubernetes.io are what kubectl and dashboards select by.
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_KIND = f"{GROUP}/kind"
LABEL_NAME = f"{GROUP}/name"
LABEL_ROLE = f"{GROUP}/role"
LABEL_VARIANT = f"{GROUP}/variant"
# Kueue's own names: a job's labels are carried to its Jobs, and the least number of workers that it may admit.
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
ANNOTATION_QUEUE_LEAST = "kueue.x-k8s.io/job-min-parallelism"
MANAGED_BY = "mizzen"
FIELD_MANAGER = "mizzen-operator"

ROLE_MATERIALIZE = "materialize"
ROLE_HEAD = "head"
ROLE_WORKERS = "workers"
ROLE_SERVER = "server"

# A change of the hash means that the pods of a child must be replaced; of the spec that it was made from, no more.
ANNOTATION_CONFIG_HASH = f"{GROUP}/config-hash"
ANNOTATION_GENERATION = f"{GROUP}/generation"
ANNOTATION_WORKERS = f"{GROUP}/workers"  # on the workers' Job: how many pods it was last asked for
ANNOTATION_MODEL_URI = f"{GROUP}/model-uri"  # on Deployments and their pods: the version that they serve

# Ports of workload pods. Servers bind to $MIZZEN_POD_IP, never to a wildcard address.
PORT_PROGRESS = 8090  # GET /progress (JSON), GET /metrics; of a model server GET /profile: no route leads there
PORT_RAY_GCS = 6379
PORT_HTTP = 8080  # model server: Open Inference Protocol v2, /predict, /metrics
PORT_MLFLOW = 5000
PORT_OPERATOR_HEALTH = 8080  # GET /healthz
PORT_OPERATOR_METRICS = 8081
PATH_PROGRESS = "/progress"
PATH_METRICS = "/metrics"
PATH_PROFILE = "/profile"
PATH_READY = "/v2/health/ready"
PATH_LIVE = "/v2/health/live"
HEADER_VARIANT = "mizzen-variant"  # a request with it goes to the variant of that name, whatever the weights

# Environment of workload pods.
ENV_POD_IP = "MIZZEN_POD_IP"
ENV_POD_NAME = "MIZZEN_POD_NAME"
ENV_NAMESPACE = "MIZZEN_NAMESPACE"
ENV_CONFIG = "MIZZEN_CONFIG"  # path of the workload's configuration, workload.WorkloadConfig as JSON
ENV_MLFLOW = "MLFLOW_TRACKING_URI"
ENV_RAY_AUTH_MODE = "RAY_AUTH_MODE"
ENV_RAY_AUTH_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 (a path)

# Environment of the operator, set by the chart.
ENV_RUNTIME_IMAGE = "MIZZEN_RUNTIME_IMAGE"
ENV_ARTIFACTS_URI = "MIZZEN_ARTIFACTS_URI"
ENV_ARTIFACTS_CLAIM_SIZE = "MIZZEN_ARTIFACTS_CLAIM_SIZE"
ENV_ARTIFACTS_STORAGE_CLASS = "MIZZEN_ARTIFACTS_STORAGE_CLASS"
ENV_ARTIFACTS_ACCESS_MODE = "MIZZEN_ARTIFACTS_ACCESS_MODE"  # of the claim; ReadWriteMany unless set
ENV_DATASETS_URI = "MIZZEN_DATASETS_URI"  # object store of dataset versions; empty: below the artifacts
ENV_DATASETS_SECRET = "MIZZEN_DATASETS_SECRET"  # noqa: S105 (a name), of the Secret to use it with, in each namespace
ENV_GATEWAY = "MIZZEN_GATEWAY"  # namespace/name of the Gateway that HTTPRoutes attach to
ENV_ACCELERATORS = "MIZZEN_ACCELERATORS"  # the chart's value of that name as JSON
ENV_WATCH_NAMESPACES = "MIZZEN_WATCH_NAMESPACES"  # comma-separated; empty means all

# Files in workload pods.
CONFIG_DIR = "/etc/mizzen"
CONFIG_FILE = "config.json"
RAY_TOKEN_DIR = "/etc/mizzen-ray"  # noqa: S105 (a path)
RAY_TOKEN_FILE = "token"  # noqa: S105 (a path)
SECRETS_DIR = "/etc/mizzen-secrets"  # SECRET/KEY below it
DATASETS_SECRET_DIR = "/etc/mizzen-datasets"  # noqa: S105 (a path): keys of the store of dataset versions
CODE_DIR = "/etc/mizzen-code"  # the user's Python files (spec.code), on PYTHONPATH
ARTIFACTS_DIR = "/artifacts"
ARTIFACTS_CLAIM = "mizzen-artifacts"
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_LIMIT = 4096

# Exit code of a workload that met a user error, which no retry cures (EX_DATAERR of sysexits.h). Others are retried.
EXIT_USER_ERROR = 65
# Exit code of a workload that was told to stop (128 + SIGTERM): its pod was taken away, which is nobody's failure.
EXIT_STOPPED = 143

# Files of a dataset version.
DATASET_MANIFEST = "manifest.json"
DATASET_PIPELINE = "pipeline.json"
DATASET_PROFILE = "profile.json"
DATASET_DATA = "data"
DATASET_EXPECTATIONS = "expectations.json"
DATASET_DRIFT = "drift.json"
DATASET_REPORT = "report.html"
DATASET_REPORT_JSON = "report.json"
DATASET_REJECTED = "rejected.parquet"  # rows that onViolation Drop kept aside, with their reasons
DATASET_VERSIONS = ".versions.json"  # beside the versions: fingerprints by the numbers of status.version
SPLITS = ("train", "validation", "test")

# Files of a model version.
MODEL_WEIGHTS = "model.safetensors"
MODEL_CONFIG = "config.json"
MODEL_PIPELINE = "pipeline.json"

# Tags of an MLflow model version: the triple that says where it came from.
TAG_DATASET_FINGERPRINT = "mizzen.dataset_fingerprint"
TAG_CODE_REVISION = "mizzen.code_revision"
TAG_CONFIG_HASH = "mizzen.config_hash"
TAG_NAMESPACE = "mizzen.namespace"
TAG_KIND = "mizzen.kind"
TAG_NAME = "mizzen.name"
TAG_UID = "mizzen.uid"

# Images by default; the chart sets tags and digests.
IMAGE_OPERATOR = "ghcr.io/mizzen-dev/operator"
IMAGE_RUNTIME = "ghcr.io/mizzen-dev/runtime"
IMAGE_MLFLOW = "ghcr.io/mizzen-dev/mlflow"

# Metrics by Prometheus conventions; docs/metrics.md lists each.
METRIC_REQUESTS = "mizzen_requests_total"
METRIC_REQUEST_SECONDS = "mizzen_request_duration_seconds"
METRIC_IN_FLIGHT = "mizzen_requests_in_flight"
METRIC_BATCH_SIZE = "mizzen_batch_size"
METRIC_PREDICTIONS = "mizzen_predictions_total"
METRIC_TRAINING_SAMPLES = "mizzen_training_samples_total"
METRIC_TRAINING_LOSS = "mizzen_training_loss"
METRIC_TRAINING_PROGRESS = "mizzen_training_progress_ratio"
METRIC_TRAINING_WORKERS = "mizzen_training_workers"
METRIC_TRAINING_BYTES = "mizzen_training_sent_bytes_total"
METRIC_TRAINING_RESTARTS = "mizzen_training_restarts_total"
METRIC_TRAINING_LOST_STEPS = "mizzen_training_lost_steps_total"
METRIC_TRAINING_RECOVERY_SECONDS = "mizzen_training_recovery_seconds"
METRIC_TRAINING_CHECKPOINT_AGE = "mizzen_training_checkpoint_age_seconds"
METRIC_SEARCH_TRIALS = "mizzen_search_trials"
METRIC_DATASET_ROWS = "mizzen_dataset_rows"
METRIC_RECONCILE_SECONDS = "mizzen_reconcile_duration_seconds"
METRIC_RECONCILE_ERRORS = "mizzen_reconcile_errors_total"

METRICS = {
    METRIC_REQUESTS: "Requests answered by a model server, by status code.",
    METRIC_REQUEST_SECONDS: "Time from the request's arrival to its answer, in seconds.",
    METRIC_IN_FLIGHT: "Requests that are queued or running in a model server.",
    METRIC_BATCH_SIZE: "Rows in each batch that a model ran.",
    METRIC_PREDICTIONS: "Predicted rows, by predicted class.",
    METRIC_TRAINING_SAMPLES: "Training rows that all workers have processed.",
    METRIC_TRAINING_LOSS: "Training loss of the last report.",
    METRIC_TRAINING_PROGRESS: "Part of the training that is done, from 0 to 1.",
    METRIC_TRAINING_WORKERS: "Workers that train now.",
    METRIC_TRAINING_BYTES: "Bytes of gradients that a worker has sent.",
    METRIC_TRAINING_RESTARTS: "Times that the group of workers was formed anew after a failure.",
    METRIC_TRAINING_LOST_STEPS: "Optimizer steps that had to be done again.",
    METRIC_TRAINING_RECOVERY_SECONDS: "The last failure, from its notice to the next optimizer step, in seconds.",
    METRIC_TRAINING_CHECKPOINT_AGE: "Time since the newest durable checkpoint, in seconds.",
    METRIC_SEARCH_TRIALS: "Trials of a search, by state.",
    METRIC_DATASET_ROWS: "Rows read so far from a dataset's sources.",
    METRIC_RECONCILE_SECONDS: "Time that the operator took to reconcile one resource, in seconds.",
    METRIC_RECONCILE_ERRORS: "Reconciliations that failed and are tried again.",
}
