"""The command `mizzen`: what pods run, and what people type. Each command imports what it needs when it is called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import mizzen

app = typer.Typer(
    name="mizzen",
    help="Kubernetes-native MLOps: from a Dataset to a searched, trained, served and watched model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Datasets.", no_args_is_help=True)
app.add_typer(data, name="data")

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@data.command()
def materialize() -> None:
    """Make the version of a Dataset that $MIZZEN_CONFIG describes (runs in a pod)."""
    _run_workload("mizzen.data.command", "Dataset")


@data.command()
def diff(
    a: Annotated[str, typer.Argument(help="Folder or URI of a version, or NAME@VERSION.")],
    b: Annotated[str, typer.Argument(help="The version to compare it with.")],
    artifacts: Annotated[
        str, typer.Option(envvar="MIZZEN_ARTIFACTS_URI", help="Artifacts folder that NAME@VERSION lies in.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="Namespace of NAME@VERSION.")] = "default",
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where the versions differ.")] = False,
) -> None:
    """Show what has changed between two versions of a Dataset.

    VERSION is the number in the Dataset's status, how a fingerprint begins, latest, or previous.
    """
    run = _load("mizzen.data.diff.command", "runtime").run
    raise typer.Exit(run(a, b, artifacts, namespace, output, exit_code=exit_code))


@app.command()
def search() -> None:
    """Run the SearchJob that $MIZZEN_CONFIG describes: Ray head and driver (runs in a pod)."""
    _run_workload("mizzen.search.driver", "SearchJob")


@app.command()
def train() -> None:
    """Run the TrainingJob that $MIZZEN_CONFIG describes: Ray head and driver (runs in a pod)."""
    _run_workload("mizzen.train.driver", "TrainingJob")


@app.command(name="ray-worker")
def ray_worker() -> None:
    """Join the Ray head that $MIZZEN_CONFIG names, again and again until stopped (runs in a pod)."""
    from mizzen.workload.worker import main as work

    raise typer.Exit(work())


_TRACKING = typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address.")


@app.command()
def export(
    uri: Annotated[str, typer.Argument(help="models:/NAME/VERSION, models:/NAME@ALIAS, or a model's folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to write, for example models/v4.0.")],
    tracking_uri: Annotated[str, _TRACKING] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is there.")] = False,
) -> None:
    """Write a registered version as a folder for Git: config.yaml, dataset_hash.txt, checkpoint/, .gitattributes."""
    run = _load("mizzen.registry.transfer", "runtime").export_command
    raise typer.Exit(run(uri, folder, tracking_uri, force=force))


@app.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder that `mizzen export` wrote.")],
    name: Annotated[str, typer.Option(help="Registered model that becomes one version richer.")],
    alias: Annotated[str, typer.Option(help="Alias to move to the new version.")] = "",
    tracking_uri: Annotated[str, _TRACKING] = "",
) -> None:
    """Register an exported folder, once each of its files is known to be what was exported."""
    run = _load("mizzen.registry.transfer", "runtime").import_command
    raise typer.Exit(run(folder, name, alias, tracking_uri))


@app.command(context_settings=_PASS_ON)
def serve(context: typer.Context) -> None:
    """Serve a model over the Open Inference Protocol v2 (runs in a pod)."""
    command = _load("mizzen.serve.command", "serve").serve
    _delegate(command, "mizzen serve", context.args)


@app.command(context_settings=_PASS_ON)
def up(context: typer.Context) -> None:
    """Start the embedded cluster and install the chart into it."""
    _local("up", *context.args)


@app.command(context_settings=_PASS_ON)
def down(context: typer.Context) -> None:
    """Stop the embedded cluster."""
    _local("down", *context.args)


@app.command(context_settings=_PASS_ON)
def status(context: typer.Context) -> None:
    """Show the embedded cluster."""
    _local("status", *context.args)


@app.command(context_settings=_PASS_ON)
def local(context: typer.Context) -> None:
    """Everything else of the embedded cluster."""
    _local(*context.args)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(mizzen.__version__)


def main() -> None:
    """Entry point of the console script."""
    app()


def _run_workload(module: str, kind: str) -> None:
    from mizzen.workload.outcome import run_workload

    run = _load(module, "runtime").run
    raise typer.Exit(run_workload(kind, run))


def _local(*arguments: str) -> None:
    _delegate(_load("mizzen_local.cli", "local").app, "mizzen", list(arguments))


def _delegate(command: Any, name: str, arguments: list[str]) -> None:
    """Run another Typer application, or a function that Typer can turn into one, with our arguments."""
    if not isinstance(command, typer.Typer):
        wrapper = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        wrapper.command()(command)
        command = wrapper
    command(args=arguments, prog_name=name)


def _load(module: str, extra: str) -> Any:
    """Import a part that needs an extra; where that is not installed, say which."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        typer.echo(f"{error}. This command needs more: pip install 'mizzen[{extra}]'", err=True)
        sys.exit(1)
