"""A trained model as a folder: safetensors, JSON and the pipeline that its inputs went through. No pickle anywhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mizzen.data.pipeline import Pipeline
from mizzen.models.building import Recipe
from mizzen.models.inputs import inputs_of
from mizzen.models.own_code import copy_code, importable
from mizzen.models.shapes import DataShape
from mizzen_api import contract

FORMAT = 1
CODE = "code"  # folder of the files that an entrypoint's module lies in


@dataclass(frozen=True)
class TrainedModel:
    """A module in evaluation mode with its pipeline. Made by `load`."""

    name: str
    module: nn.Module
    pipeline: Pipeline
    recipe: Recipe

    @property
    def classes(self) -> tuple[str, ...]:
        """None where the model predicts a number."""
        return self.pipeline.classes

    @property
    def data(self) -> DataShape:
        return self.recipe.data

    def predict(self, ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Probabilities (rows, classes) float32 for token ids and lengths of Pipeline.transform_rows."""
        return probabilities(self.module, ids, lengths)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
        """Probabilities (rows, classes) float32 for raw rows; where the target is a number, its values (rows, 1).

        RowError names a row that cannot be read.
        """
        if not rows:
            return np.zeros((0, self.data.outputs), dtype=np.float32)
        return self.answers(self.inputs(rows))

    def inputs(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
        """What the module is called with."""
        return inputs_of(self.data, self.pipeline.features, self.pipeline.transform_rows(rows))

    def answers(self, inputs: tuple[Tensor, ...]) -> np.ndarray[Any, Any]:
        """Probabilities, or values in the target's own unit."""
        with torch.inference_mode():
            output = self.module(*inputs).float()
            if self.data.classes:
                output = torch.softmax(output, dim=-1)
            else:
                output = output.reshape(-1, 1) * self.recipe.target_deviation + self.recipe.target_mean
            made: np.ndarray[Any, Any] = output.numpy()
        return made


def probabilities(module: nn.Module, ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Class probabilities of texts; the batch is cut to its longest row, which changes no result."""
    if not len(ids):
        return np.zeros((0, 0), dtype=np.float32)
    width = int(lengths.max())
    with torch.inference_mode():
        logits_BC = module(torch.from_numpy(ids[:, :width].astype(np.int64)), torch.from_numpy(lengths))
        result: np.ndarray[Any, Any] = torch.softmax(logits_BC.float(), dim=-1).numpy()
    return result


def save(folder: Path, name: str, config: Any, module: nn.Module, pipeline_file: Path) -> None:
    """Write the folder of a model of the catalog: weights, configuration, pipeline."""
    pipeline = Pipeline.load(pipeline_file)
    recipe = Recipe(DataShape.of(pipeline), model=name, config=dataclasses.asdict(config))
    write(folder, recipe, module.state_dict(), pipeline)


def write(folder: Path, recipe: Recipe, weights: Mapping[str, Tensor], pipeline: Pipeline) -> None:
    """Write a model folder. An entrypoint's own files go with it, so that a server can build the module too."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    save_file(_unshared(tensors), folder / contract.MODEL_WEIGHTS)
    (folder / contract.MODEL_CONFIG).write_text(json.dumps({"format": FORMAT, **_wire(recipe)}, indent=1))
    (folder / contract.MODEL_PIPELINE).write_text(pipeline.to_json())
    if recipe.entrypoint:
        copy_code(recipe.entrypoint, folder / CODE)


def load(folder: str | Path, module: nn.Module | None = None) -> TrainedModel:
    """Read a model folder. ValueError or OSError where it is not one.

    `module` takes the weights of a model that was trained as an object, which nothing here could build.
    """
    folder = Path(folder)
    document = json.loads((folder / contract.MODEL_CONFIG).read_bytes())
    if document.get("format") != FORMAT:
        raise ValueError(f"model format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
    pipeline = Pipeline.load(folder / contract.MODEL_PIPELINE)
    recipe = _recipe(document, pipeline)
    if module is None:
        if not (recipe.model or recipe.entrypoint):
            raise ValueError(f"{folder} holds the weights of a module that was given as an object: give load one, too")
        with importable(recipe.entrypoint, folder / CODE):
            module = recipe.build()
    module.load_state_dict(load_file(folder / contract.MODEL_WEIGHTS))
    module.eval()
    return TrainedModel(recipe.name, module, pipeline, recipe)


def _wire(recipe: Recipe) -> dict[str, Any]:
    target = {"mean": recipe.target_mean, "deviation": recipe.target_deviation}
    source = {"entrypoint": recipe.entrypoint} if recipe.entrypoint else {"model": recipe.model}
    return {**source, "config": recipe.config, "data": recipe.data.to_dict(), "target": target}


def _recipe(document: Mapping[str, Any], pipeline: Pipeline) -> Recipe:
    """`data` and `target` came later than the format's first models, which are all for classes of texts."""
    data = document.get("data")
    target = document.get("target", {"mean": 0.0, "deviation": 1.0})
    return Recipe(
        data=DataShape.from_dict(data) if data else DataShape.of(pipeline),
        model=document.get("model", ""),
        entrypoint=document.get("entrypoint", ""),
        config=document["config"],
        target_mean=target["mean"],
        target_deviation=target["deviation"],
    )


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights are written once for each name: safetensors knows no sharing."""
    seen: set[int] = set()
    made = {}
    for name, value in tensors.items():
        made[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return made
