"""Fine-tuning on another version of a Dataset: weights that belong to a token, a column or a class go with its name.

A new vocabulary numbers its tokens anew. Loaded by position, a known model would read each word as another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mizzen.data.pipeline import Pipeline, matrix_names
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.models.artifact import TrainedModel

log = logging.getLogger(__name__)

# Names of parameters in the catalog's models, whose rows (or columns) stand for something that has a name.
_TOKENS = "tokens.weight"
_COLUMNS = "stem.weight"
_HEADS = ("head.weight", "head.bias", "mlp.4.weight", "mlp.4.bias")


@torch.no_grad()
def carry_over(known: TrainedModel, module: nn.Module, pipeline: Pipeline, uri: str) -> None:
    """Fill `module`, which is fresh, with what `known` learned. What has no name there keeps its first values.

    UserError where another tensor has another shape.
    """
    mine, its = module.state_dict(), known.module.state_dict()
    if mine.keys() != its.keys():
        odd = sorted(mine.keys() ^ its.keys())[0]
        raise UserError(Reason.INVALID_PARAMETERS, f"model.uri {uri}: its code makes another module now: see {odd}")
    for name, value in its.items():
        names = _names(name, known.pipeline), _names(name, pipeline)
        if known.recipe.model and names[0] and names[1]:
            _by_name(mine[name], value, *names, dim=1 if name == _COLUMNS else 0)
        elif mine[name].shape == value.shape:
            mine[name].copy_(value)
        elif name == "positions.weight":
            shared = min(len(value), len(mine[name]))
            mine[name][:shared] = value[:shared]
        else:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"model.uri {uri}: {name} has shape {tuple(value.shape)}, and the Dataset asks for "
                f"{tuple(mine[name].shape)}",
            )


def _names(parameter: str, pipeline: Pipeline) -> Sequence[str]:
    """What the rows of a parameter stand for; nothing where they stand for nothing."""
    kinds = {feature.kind for feature in pipeline.features}
    if parameter == _TOKENS and "tokens" in kinds:
        vocabulary: dict[str, int] = pipeline.tokens.tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)
    if parameter == _COLUMNS and kinds <= {"number", "onehot"}:
        return matrix_names(pipeline.features)
    return pipeline.classes if parameter in _HEADS else ()


def differing(one: Pipeline, other: Pipeline) -> str | None:
    """What two pipelines number otherwise: tokens, columns or classes; None where all is alike."""
    parts = {"tokens": _TOKENS, "columns": _COLUMNS, "classes": _HEADS[0]}
    return next((what for what, name in parts.items() if list(_names(name, one)) != list(_names(name, other))), None)


def _by_name(mine: Tensor, its: Tensor, known: Sequence[str], wanted: Sequence[str], dim: int) -> None:
    place = {name: at for at, name in enumerate(known)}
    pairs = [(at, place[name]) for at, name in enumerate(wanted) if name in place]
    if pairs:
        here, there = (torch.tensor(part) for part in zip(*pairs, strict=True))
        mine.index_copy_(dim, here, its.index_select(dim, there))
    if len(pairs) < len(wanted):
        log.info("fine-tuning: %d of %d names are known to the model", len(pairs), len(wanted))
