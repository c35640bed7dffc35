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
from mizzen.registry.gates import failures
from mizzen.registry.layout import model_in
from mizzen.registry.pyfunc import write_mlmodel
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import ModelVersion, Register

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MODEL_ARTIFACT = "model"


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

    Safe to repeat: a version with the same uid and config hash is found again.

    UserError GateFailed where a gate does not pass; the version stays, without the alias.
    """
    patiently(lambda: _ensure_model(client, target.name), f"find model {target.name}")
    version = patiently(lambda: _find(client, target.name, tags), "find the version")
    if version is None:
        write_mlmodel(folder, run_id, profile)
        patiently(lambda: client.log_artifacts(run_id, str(folder), MODEL_ARTIFACT), "upload the model")
        version = patiently(lambda: _create(client, target.name, run_id, tags), "create the version")
    uri = f"models:/{target.name}/{version}"
    failed = failures(target.gates, metrics)
    gates = "failed: " + "; ".join(failed) if failed else "passed"
    patiently(lambda: client.set_model_version_tag(target.name, str(version), "mizzen.gates", gates), "tag the version")
    made = ModelVersion(name=target.name, version=version, uri=uri, run_id=run_id)
    if failed:
        log.info("%s is registered without an alias", uri)
        raise GateError(made, f"{'; '.join(failed)}. {uri} stays registered, without an alias")
    if target.alias is not None:
        alias = target.alias
        patiently(lambda: client.set_registered_model_alias(target.name, alias, str(version)), "move the alias")
    return made.model_copy(update={"alias": target.alias})


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
    client = connect(tracking_uri or os.environ.get(contract.ENV_MLFLOW, "http://127.0.0.1:5000"))
    name, version = resolve(client, uri)
    key = hashlib.sha256(f"{name}/{version}".encode()).hexdigest()[:16]
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


def _find(client: MlflowClient, name: str, tags: Mapping[str, str]) -> int | None:
    keys = (contract.TAG_UID, contract.TAG_CONFIG_HASH)
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == tags[key] for key in keys):
            return int(version.version)
    return None


def _create(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> int:
    """Looked up again first: the request before may have been done although its answer was lost."""
    found = _find(client, name, tags)
    if found is not None:
        return found
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_ARTIFACT}"
    made = client.create_model_version(name, source, run_id, tags=dict(tags), await_creation_for=None)
    return int(made.version)
