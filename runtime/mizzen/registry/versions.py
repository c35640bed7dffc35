"""Model versions: registered once for each training, aliased when the gates pass, fetched for serving."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.data.store import Publication
from mizzen.errors import UserError
from mizzen.registry.client import connect, patiently
from mizzen.registry.gates import Candidate, judge
from mizzen.registry.layout import model_in
from mizzen.registry.pyfunc import write_mlmodel
from mizzen.registry.rivals import rivals
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import ModelVersion, Register

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

DEFAULT_TRACKING = "http://127.0.0.1:5000"
MODEL_ARTIFACT = "model"
TAG_GATES = "mizzen.gates"
TAG_LENGTH = 5000  # what MLflow keeps of a version's tag


def register(
    client: MlflowClient,
    target: Register,
    folder: Path,
    run_id: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    profile: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """Register the model folder; `profile` is the Dataset's, for the input example.

    Safe to repeat, from several processes too: one uid and config hash has one version, which is made once its files
    are all there.

    UserError GateFailed where a gate does not pass; the version stays, without the alias.
    """
    patiently(lambda: _ensure_model(client, target.name), f"find model {target.name}")
    if not patiently(lambda: _find(client, target.name, tags), "find the version"):
        write_mlmodel(folder, run_id, profile)
        patiently(lambda: client.log_artifacts(run_id, str(folder), MODEL_ARTIFACT), "upload the model")
        patiently(lambda: _create(client, target.name, run_id, tags), "create the version")
    made = patiently(lambda: _settle(client, target.name, tags), "settle on the version")
    failed = _judged(client, target, made, tags, metrics)
    if failed:
        log.info("%s is registered without an alias", made.uri)
        raise GateError(made, f"{'; '.join(failed)}. {made.uri} stays registered, without an alias")
    if target.alias is not None:
        alias = target.alias
        patiently(lambda: client.set_registered_model_alias(target.name, alias, str(made.version)), "move the alias")
    return made.model_copy(update={"alias": target.alias})


def _judged(
    client: MlflowClient, target: Register, made: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float]
) -> list[str]:
    """What the gates that fail say. The version's tag has what all of them say."""
    fingerprint = tags.get(contract.TAG_DATASET_FINGERPRINT, "")
    verdicts = judge(target.gates, Candidate(metrics, fingerprint, rivals(client, target)))
    failed = [verdict.text for verdict in verdicts if not verdict.passed]
    said = "failed: " + "; ".join(failed) if failed else "passed"
    if verdicts and not failed:
        said += ": " + "; ".join(verdict.text for verdict in verdicts)
    version = str(made.version)
    patiently(lambda: client.set_model_version_tag(target.name, version, TAG_GATES, said[:TAG_LENGTH]), "tag it")
    return failed


class GateError(UserError):
    """GateFailed, with the version that was registered all the same."""

    def __init__(self, version: ModelVersion, message: str) -> None:
        super().__init__(Reason.GATE_FAILED, message)
        self.version = version


def download(uri: str, cache: str | Path, tracking_uri: str | None = None) -> Path:
    """The model folder behind models:/NAME/VERSION, models:/NAME@ALIAS or a path; fetched once into `cache`.

    A path may be that of an exported folder: UserError where its files are not what was exported.
    Versions never change, so a cached one is used without asking; an alias is looked up each time.
    """
    if not uri.startswith("models:/"):
        return model_in(Path(uri.removeprefix("file://")))
    registry = tracking_uri or os.environ.get(contract.ENV_MLFLOW, DEFAULT_TRACKING)
    client = connect(registry)
    name, version = resolve(client, uri)
    key = hashlib.sha256(f"{registry} {name}/{version}".encode()).hexdigest()[:16]
    folder = Path(cache) / f"{name.replace('/', '_')}-{version}-{key}"
    if folder.is_dir():
        return folder

    def fetch() -> None:
        import mlflow

        with Publication(folder, contract.MODEL_CONFIG) as draft:
            source = client.get_model_version_download_uri(name, version)
            fetched = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(draft / "fetched"))
            for file in Path(fetched).iterdir():
                shutil.move(file, draft / file.name)
            shutil.rmtree(draft / "fetched", ignore_errors=True)

    patiently(fetch, f"download {uri}")
    return folder


def run_of(uri: str, tracking_uri: str = "") -> str:
    """The run that made the version behind models:/…; UserError where there is none."""
    client = connect(tracking_uri or os.environ.get(contract.ENV_MLFLOW, DEFAULT_TRACKING))
    name, version = resolve(client, uri)
    return str(patiently(lambda: client.get_model_version(name, version), f"find {uri}").run_id or "")


def resolve(client: MlflowClient, uri: str) -> tuple[str, str]:
    """Name and version of models:/NAME/VERSION or models:/NAME@ALIAS."""
    rest = uri.removeprefix("models:/").strip("/")
    name, at, alias = rest.partition("@")
    if at:
        found = patiently(lambda: client.get_model_version_by_alias(name, alias), f"resolve {uri}")
        return name, str(found.version)
    name, _, version = rest.rpartition("/")
    if not name or not version.isdigit():
        raise ValueError(f"{uri} is neither models:/NAME/VERSION nor models:/NAME@ALIAS")
    return name, version


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(client: MlflowClient, name: str, tags: Mapping[str, str]) -> list[ModelVersion]:
    """Versions of this training, the first one first."""
    keys = (contract.TAG_UID, contract.TAG_CONFIG_HASH)
    found = [
        ModelVersion(
            name=name, version=int(there.version), uri=f"models:/{name}/{there.version}", run_id=there.run_id or ""
        )
        for there in client.search_model_versions(f"name = '{name}'")
        if all(there.tags.get(key) == tags[key] for key in keys)
    ]
    return sorted(found, key=lambda version: version.version)


def _create(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Looked up again first: the request before may have been done although its answer was lost."""
    if not _find(client, name, tags):
        source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_ARTIFACT}"
        client.create_model_version(name, source, run_id, tags=dict(tags), await_creation_for=None)


def _settle(client: MlflowClient, name: str, tags: Mapping[str, str]) -> ModelVersion:
    """The one version. Two processes that did not see each other made two: the first stays, whoever notices."""
    from mlflow.exceptions import MlflowException

    first, *later = _find(client, name, tags)
    for version in later:
        log.warning("%s is the same as %s, and is removed", version.uri, first.uri)
        try:
            client.delete_model_version(name, str(version.version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return first
