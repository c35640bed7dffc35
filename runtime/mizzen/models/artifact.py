"""A trained model as a folder: safetensors, JSON and the pipeline that its inputs went through. No pickle anywhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mizzen.data.pipeline import IDS, LENGTHS, Pipeline
from mizzen.models import catalog
from mizzen_api import contract

FORMAT = 1


@dataclass(frozen=True)
class TrainedModel:
    """A module in evaluation mode with its pipeline. Made by `load`."""

    name: str
    module: nn.Module
    pipeline: Pipeline

    @property
    def classes(self) -> tuple[str, ...]:
        return self.pipeline.classes

    def predict(self, ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Probabilities (rows, classes) float32 for the arrays of Pipeline.transform_rows."""
        return probabilities(self.module, ids, lengths)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
        """Probabilities (rows, classes) float32 for raw rows."""
        arrays = self.pipeline.transform_rows(rows)
        return self.predict(arrays[IDS], arrays[LENGTHS])


def probabilities(module: nn.Module, ids: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Class probabilities; the batch is cut to its longest row, which changes no result."""
    if not len(ids):
        return np.zeros((0, 0), dtype=np.float32)
    width = int(lengths.max())
    with torch.inference_mode():
        logits_BC = module(torch.from_numpy(ids[:, :width].astype(np.int64)), torch.from_numpy(lengths))
        result: np.ndarray[Any, Any] = torch.softmax(logits_BC.float(), dim=-1).numpy()
    return result


def save(folder: Path, name: str, config: Any, module: nn.Module, pipeline_file: Path) -> None:
    """Write a model folder: weights, configuration, pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / contract.MODEL_WEIGHTS)
    document = {"format": FORMAT, "model": name, "config": dataclasses.asdict(config)}
    (folder / contract.MODEL_CONFIG).write_text(json.dumps(document, indent=1))
    shutil.copyfile(pipeline_file, folder / contract.MODEL_PIPELINE)


def load(folder: str | Path) -> TrainedModel:
    """Read a model folder. ValueError or OSError where it is not one."""
    folder = Path(folder)
    document = json.loads((folder / contract.MODEL_CONFIG).read_bytes())
    if document.get("format") != FORMAT:
        raise ValueError(f"model format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
    found = catalog.entry(document["model"])
    module_of = __import__(found.module, fromlist=[found.config])
    module = catalog.build(document["model"], getattr(module_of, found.config)(**document["config"]))
    module.load_state_dict(load_file(folder / contract.MODEL_WEIGHTS))
    module.eval()
    return TrainedModel(document["model"], module, Pipeline.load(folder / contract.MODEL_PIPELINE))
