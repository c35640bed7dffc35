"""`mizzen export` and `mizzen import`: a registered version as a folder for Git, and back, to the bit."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from mizzen.errors import MizzenError, UserError
from mizzen.registry import layout
from mizzen.registry.client import connect, patiently
from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run
from mizzen.registry.versions import DEFAULT_TRACKING, download, register, resolve
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import ModelVersion, Register

EXPERIMENT = "imported"


def export(uri: str, folder: Path, tracking_uri: str = "", *, force: bool = False) -> Path:
    """Write models:/NAME/VERSION, models:/NAME@ALIAS or a model's folder into `folder`, which appears when it is whole.

    UserError where it is there already and `force` is not given, and where `uri` is no model.
    """
    if folder.exists() and not force:
        raise UserError(Reason.INVALID_PARAMETERS, f"{folder} is there already: name another, or use --force")
    about = _about(uri, tracking_uri)
    with tempfile.TemporaryDirectory(prefix="mizzen-export-") as cache:
        model = download(uri, cache, tracking_uri or None)
        layout.check_kinds(model)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(model, draft, about)
            _take_place(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write(model: Path, draft: Path, about: layout.Exported) -> None:
    for path in layout.files_of(model):
        target = draft / layout.CHECKPOINT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / path, target)
    _ensure_example(draft / layout.CHECKPOINT)
    layout.write_papers(draft, about)
    draft.chmod(0o755)


def _ensure_example(checkpoint: Path) -> None:
    """A version gets one when it is registered; with it the folder is the same before and after."""
    from mizzen.data.pipeline import Pipeline
    from mizzen.registry import signature

    if not (checkpoint / signature.EXAMPLE_FILE).exists():
        pipeline = Pipeline.load(checkpoint / contract.MODEL_PIPELINE)
        signature.write_example(checkpoint, signature.example_of(pipeline))


def _take_place(draft: Path, folder: Path) -> None:
    """Where a folder is replaced, the old one goes only once the new one has its name."""
    old = draft.with_name(f"{draft.name}.old")
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def import_(folder: Path, name: str, alias: str | None = None, tracking_uri: str = "") -> ModelVersion:
    """Register an exported folder. The same folder gives the same version, however often it is imported.

    UserError where a file is not what was exported; nothing is registered then.
    """
    about = layout.read(folder)
    client = connect(tracking_uri or os.environ.get(contract.ENV_MLFLOW, DEFAULT_TRACKING))
    digest = hashlib.sha256((folder / layout.CONFIG).read_bytes()).hexdigest()
    tags = {tag: about.provenance.get(key, "") for key, tag in layout.TRIPLE.items()}
    tags |= {contract.TAG_UID: f"import-{digest[:32]}", contract.TAG_NAME: name, contract.TAG_KIND: "Import"}
    run = RunLog(client, ensure_run(client, ensure_experiment(client, EXPERIMENT), name, tags))
    run.parameters(about.parameters)
    run.metrics(about.metrics, 0)
    run.flush()
    with tempfile.TemporaryDirectory(prefix="mizzen-import-") as draft:
        model = Path(draft) / "model"
        shutil.copytree(folder / layout.CHECKPOINT, model, ignore=shutil.ignore_patterns(*layout.LEFT_OUT))
        version = register(client, Register(name=name, alias=alias), model, run.run_id, tags, about.metrics)
    run.end()
    return version


def _about(uri: str, tracking_uri: str) -> layout.Exported:
    """The triple, parameters and metrics of the version's run, or what the model's folder says of them."""
    if not uri.startswith("models:/"):
        return layout.origin_of(Path(uri.removeprefix("file://")))
    client = connect(tracking_uri or os.environ.get(contract.ENV_MLFLOW, DEFAULT_TRACKING))
    name, number = resolve(client, uri)
    version = patiently(lambda: client.get_model_version(name, number), f"find {uri}")
    run = patiently(lambda: client.get_run(version.run_id), f"find the run of {uri}")
    triple = {key: version.tags[tag] for key, tag in layout.TRIPLE.items() if version.tags.get(tag)}
    return layout.Exported(triple, dict(run.data.params), dict(run.data.metrics))


def export_command(uri: str, folder: Path, tracking_uri: str, *, force: bool) -> int:
    try:
        made = export(uri, folder, tracking_uri, force=force)
    except (MizzenError, ValueError, OSError) as error:
        return _said(error)
    files = sum(1 for path in made.rglob("*") if path.is_file())
    print(f"{uri} is in {made}: {files} files, {sum(p.stat().st_size for p in made.rglob('*')) / 1e6:.1f} MB")
    return 0


def import_command(folder: Path, name: str, alias: str, tracking_uri: str) -> int:
    try:
        version = import_(folder, name, alias or None, tracking_uri)
    except (MizzenError, ValueError, OSError) as error:
        return _said(error)
    print(f"{folder} is {version.uri}" + (f", with the alias {version.alias}" if version.alias else ""))
    return 0


def _said(error: Exception) -> int:
    print(error.message if isinstance(error, MizzenError) else error, file=sys.stderr)
    return 1
