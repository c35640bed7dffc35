"""The models: settings, shapes, padding, and the folder that one is saved to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.data.store import DatasetVersion
from mizzen.errors import UserError
from mizzen.models import artifact, catalog
from mizzen_api.conditions import Reason

TEXT_MODELS = [name for name, entry in catalog.MODELS.items() if entry.modality == "text"]
DATASET = {"vocab_size": 600, "num_classes": 3, "max_length": 24}


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("gpt", {}, "there is no model 'gpt'; there are text-transformer, text-bag, mlp, cnn, resnet"),
        ("text-bag", {"num_layers": 2}, "no setting 'num_layers'; it has embedding_dim, hidden_dim, dropout, and lr"),
        ("text-transformer", {"embedding_dim": 10, "attention_heads": 4}, "must be a multiple of attention_heads"),
        ("text-transformer", {"num_layers": 1.5}, "num_layers must be a whole number above 0, not 1.5"),
        ("text-transformer", {"dropout": 1.0}, "dropout must be a number from 0 to below 1"),
        ("text-transformer", {"vocab_size": 5}, "no setting 'vocab_size'"),
    ],
)
def test_bad_settings_are_named(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        catalog.config_of(name, settings, **DATASET)
    assert error.value.reason == Reason.INVALID_PARAMETERS
    assert said in error.value.message


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_padding_changes_nothing(name: str) -> None:
    torch.manual_seed(1)
    module = catalog.build(name, catalog.config_of(name, {"embedding_dim": 16}, **DATASET)).eval()
    ids, lengths = torch.randint(2, 600, (5, 10)), torch.tensor([1, 3, 5, 9, 10])
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    together = module(ids, lengths)
    assert together.shape == (5, 3)
    alone = torch.cat([module(ids[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_saved_model_predicts_the_same_and_holds_no_pickle(name: str, version: Version, tmp_path: Path) -> None:
    dataset = DatasetVersion(version.uri)
    config = catalog.config_of(
        name, {"embedding_dim": 16}, vocab_size=dataset.pipeline.vocab_size, num_classes=3, max_length=24
    )
    module = catalog.build(name, config).eval()
    artifact.save(tmp_path / "m", name, config, module, dataset.folder / "pipeline.json")
    loaded = artifact.load(tmp_path / "m")
    part = dataset.part("test")
    np.testing.assert_array_equal(
        loaded.predict(part.ids, part.lengths), artifact.probabilities(module, part.ids, part.lengths)
    )
    assert loaded.predict_rows([{"text": "i love it"}]).sum() == pytest.approx(1.0, abs=1e-5)
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"model.safetensors", "config.json", "pipeline.json"}
