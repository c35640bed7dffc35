"""Durable progress: model and optimizer as safetensors, the rest as JSON; the data position is the step itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mizzen.train.seams import TrainState

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / MODEL)
    save_file(_flat(model, optimizer), folder / OPTIMIZER)
    (folder / STATE).write_text(json.dumps(asdict(state)))


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """Put the checkpoint's tensors into `model` and `optimizer`."""
    model.load_state_dict(load_file(folder / MODEL))
    tensors = load_file(folder / OPTIMIZER)
    for name, parameter in model.named_parameters():
        found = {key.rpartition("|")[2]: value for key, value in tensors.items() if key.rpartition("|")[0] == name}
        if found:
            optimizer.state[parameter] = found
    return TrainState(**json.loads((folder / STATE).read_bytes()))


def _flat(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`parameter|slot` → tensor, for example `head.weight|exp_avg`; AdamW's step count is a tensor as well."""
    return {
        f"{name}|{slot}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }
