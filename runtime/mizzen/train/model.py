"""The module that a plan asks for: by name, by an import path, or a registered version to go on from; and a teacher."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.errors import UserError
from mizzen.models.building import Recipe, check_fits
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from torch import nn

    from mizzen.models.artifact import TrainedModel
    from mizzen.models.shapes import DataShape
    from mizzen.train.distill import Distilled
    from mizzen.train.plan import TrainPlan
    from mizzen.train.tasks.base import RowsAtRest
    from mizzen_api.trainingjob_trainer import Distillation


def recipe_of(plan: TrainPlan, data: DataShape) -> Recipe:
    """What the module is made of; settings are checked and nothing is built. Registered versions bring their own."""
    if plan.entrypoint:
        return Recipe(data, entrypoint=plan.entrypoint, config=dict(plan.settings))
    return Recipe.by_name(plan.model, plan.settings, data)


def model_of(plan: TrainPlan, dataset: RowsAtRest | None, data: DataShape) -> tuple[Recipe, nn.Module]:
    """A module that fits the dataset: UserError with the shapes where it does not."""
    if plan.model_uri:
        if dataset is None:
            raise UserError(Reason.INVALID_PARAMETERS, "model.uri needs a Dataset: arrays do not name their columns")
        return fine_tuned(plan.model_uri, dataset, data)
    recipe = recipe_of(plan, data)
    module = recipe.build()
    if plan.entrypoint:
        check_fits(module, data, f"model.entrypoint {plan.entrypoint}")
    return recipe, module


def fine_tuned(uri: str, dataset: RowsAtRest, data: DataShape) -> tuple[Recipe, nn.Module]:
    """A registered version, made for this dataset: what its vocabulary and classes share with ours is kept."""
    from mizzen.train.carrying import carry_over

    known = registered(uri)
    if known.data.modality != data.modality or bool(known.data.classes) != bool(data.classes):
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"model.uri {uri} was trained for {known.data.task}, and the Dataset is one for {data.task}: use another "
            "version, or another Dataset",
        )
    sizes = {key: value for key, value in data.settings().items() if key in known.recipe.config}
    config = known.recipe.config | sizes if known.recipe.model else known.recipe.config
    recipe = replace(known.recipe, data=data, config=config)
    module = recipe.build()
    carry_over(known, module, dataset.pipeline, uri)
    check_fits(module, data, f"model.uri {uri}")
    return recipe, module


def distilled(module: nn.Module, settings: Distillation, data: DataShape, dataset: RowsAtRest | None) -> Distilled:
    """The module beside its teacher, a registered version: UserError where it reads data otherwise."""
    from mizzen.train.carrying import differing
    from mizzen.train.distill import Distilled

    teacher = registered(settings.teacher_uri)
    odd = differing(teacher.pipeline, dataset.pipeline) if dataset is not None else None
    if odd is not None:
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"trainer.distillation: the {odd} of teacher {settings.teacher_uri} are not those of the Dataset, "
            "so that it would read other words than there are: train the teacher on this version of the Dataset",
        )
    return Distilled(module, teacher.module, settings, data.example())


def registered(uri: str) -> TrainedModel:
    from mizzen.models import artifact
    from mizzen.registry.versions import download

    return artifact.load(download(uri, cache=Path(tempfile.gettempdir()) / "mizzen-models"))
