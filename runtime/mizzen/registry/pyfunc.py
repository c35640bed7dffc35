"""MLflow's loader module for Mizzen models: `mlflow.pyfunc.load_model` works without any pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mizzen_api import contract


class MizzenPyfunc:
    """`predict` takes a pandas DataFrame (or a list of dictionaries) and gives class names, or numbers."""

    def __init__(self, folder: Path) -> None:
        from mizzen.models.artifact import load

        self.model = load(folder)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str] | list[float]:
        del params
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else model_input
        answers = self.model.predict_rows(rows)
        if not self.model.classes:
            return [float(value) for value in answers[:, 0]]
        return [self.model.classes[index] for index in answers.argmax(axis=1)]


def _load_pyfunc(path: str) -> MizzenPyfunc:
    """Called by MLflow with the model's `data` folder."""
    folder = Path(path)
    return MizzenPyfunc(folder if (folder / contract.MODEL_CONFIG).exists() else folder.parent)


def write_mlmodel(folder: Path, run_id: str, profile: Mapping[str, Any] | None = None) -> None:
    """Make a model folder one that MLflow knows, by an MLmodel file beside the weights, and an input example.

    `profile` is the Dataset's: the example is made of its most frequent values.
    """
    import platform

    from mlflow.models import Model

    from mizzen.data.pipeline import Pipeline
    from mizzen.registry import signature

    pipeline = Pipeline.load(folder / contract.MODEL_PIPELINE)
    if not (folder / signature.EXAMPLE_FILE).exists():  # an imported one brings its own
        signature.write_example(folder, signature.example_of(pipeline, profile))
    made = signature.signature_of(pipeline)
    model = Model(run_id=run_id, signature=made, saved_input_example_info=signature.EXAMPLE_INFO)
    model.add_flavor(
        "python_function",
        loader_module="mizzen.registry.pyfunc",
        data=".",
        python_version=platform.python_version(),
    )
    model.save(str(folder / "MLmodel"))
