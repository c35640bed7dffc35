"""DistributedTrainer, as users write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import Tensor, nn

from mizzen.data import DataPipeline, FeatureScaler
from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.models import artifact
from mizzen.models.shapes import DataShape
from mizzen.train import DistributedTrainer, autotune
from mizzen_api.conditions import Reason


def quick(**settings: object) -> DistributedTrainer:
    return DistributedTrainer("cpu", threads=1, **{"epochs": 20, "batch_size": 32, "learning_rate": 1e-2, **settings})  # type: ignore[arg-type]


def irises() -> DataPipeline:
    frame = load_iris(as_frame=True)
    table = pl.from_pandas(frame.data).with_columns(pl.Series("species", [frame.target_names[t] for t in frame.target]))
    return DataPipeline(table, [FeatureScaler(method="standard")], "species")


def test_it_constructs_as_written_on_any_machine_and_fit_says_what_is_not_there() -> None:
    trainer = DistributedTrainer(accelerator="gpu", strategy="ddp", precision=16, gradient_accumulation_steps=4)
    assert (trainer.trainer.precision, trainer.trainer.gradient_accumulation_steps) == ("fp16", 4)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        UserError, match=r"accelerator gpu: there is none on this machine.*auto takes what is here"
    ) as error:
        trainer.fit("mlp", load_iris(return_X_y=True))
    assert error.value.reason == Reason.INVALID_PARAMETERS


def test_importing_it_is_light() -> None:
    code = "import sys, mizzen.train; mizzen.train.DistributedTrainer(precision=16); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precison": 16}, "has no setting 'precison'; it has accelerator, num_workers, threads, strategy"),
        ({"precision": 12}, "precision: Input should be 'fp32', 'fp16', 'bf16' or 'fp8', not 12"),
        ({"batch_size": 0}, "batch_size|batchSize"),
        ({"accelerator": "quantum"}, "accelerator must be one of auto, cpu, gpu, tpu, npu, not 'quantum'"),
        ({"num_workers": 0}, "num_workers must be 1 or more"),
        ({"entrypoint": "net:train"}, "entrypoint is a TrainingJob's"),
        ({"strategy": "fsdp", "compression": {"method": "int8"}}, "compression goes with strategy ddp"),
        ({"precision": 16, "compression": {"method": "int8"}}, "precision fp16 scales its gradients"),
        ({"fsdp": {"cpuOffload": True}}, "fsdp goes with strategy fsdp"),
        ({"parameter_server": {}}, "parameter_server goes with strategy parameter-server"),
        ({"progressive": {}}, "progressive: name one of"),
        ({"progressive": {"batchSize": {"from": 64, "to": 8}}}, "from must not be above to"),
        ({"progressive": {"schedule": "seesaw", "imageSize": {"from": 8, "to": 64}}}, "needs progressive.batchSize"),
        (
            {
                "learning_rate_schedule": "constant",
                "progressive": {"schedule": "seesaw", "batchSize": {"from": 8, "to": 64}},
            },
            "follows a falling rate",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DistributedTrainer(**settings)  # type: ignore[arg-type]


def test_arrays() -> None:
    result = quick().fit("mlp", load_iris(return_X_y=True), config={"hidden_dim": 16})
    assert result.metrics["test_accuracy"] > 0.8
    assert result.classes == ("0", "1", "2")
    assert len(result.history) == 20 and result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.predict([{"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}]).argmax() == 0


def test_a_data_pipeline_and_the_folder_that_is_saved(tmp_path: Path) -> None:
    result = quick().fit("mlp", irises())
    assert result.metrics["test_accuracy"] > 0.8
    served = artifact.load(result.save(tmp_path / "m"))
    row = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
    assert served.classes[int(served.predict_rows([row]).argmax())] == "setosa"
    np.testing.assert_array_equal(served.predict_rows([row]), result.predict([row]))


def test_a_dataset_version_by_its_path(version: Version) -> None:
    result = quick(epochs=3, learning_rate=2e-2).fit("text-bag", version.uri)
    assert result.metrics["test_accuracy"] > result.metrics["test_majority_rate"]


def test_images_as_arrays_with_accumulation_and_channels_last() -> None:
    pixels, digits = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 1, 8, 8)[:600] / 16
    trainer = quick(gradient_accumulation_steps=2, channels_last=True, epochs=8)
    result = trainer.fit("cnn", (images, digits[:600]), config={"width": 8})
    assert result.metrics["test_accuracy"] > 0.8
    with pytest.raises(UserError, match="train on a Dataset"):
        result.save("nowhere")


def test_numbers_to_predict() -> None:
    x = np.random.default_rng(0).normal(size=(400, 3))
    y = 100 + 50 * x[:, 0] - 20 * x[:, 1]
    result = quick(epochs=30).fit("mlp", (x, y), config={"hidden_dim": 32})
    assert result.metrics["test_r2"] > 0.9
    assert result.predict([{"x0": 0.0, "x1": 0.0, "x2": 0.0}])[0, 0] == pytest.approx(100, abs=15)


class Net(nn.Module):
    """Of the user."""

    def __init__(self, config: dict[str, int], data: DataShape) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(data.num_features, config["width"]), nn.ReLU(), nn.Linear(config["width"], data.outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers(x)
        return answer


def test_a_module_of_ones_own_in_three_ways(tmp_path: Path) -> None:
    arrays = load_iris(return_X_y=True)
    by_path = quick().fit(f"{__name__}:Net", arrays, config={"width": 32})
    by_class = quick().fit(Net, arrays, config={"width": 32})
    torch.manual_seed(7)
    shape = DataShape("table", ("0", "1", "2"), num_features=4)
    module = Net({"width": 32}, shape)
    as_object = quick().fit(module, arrays)
    for result in (by_path, by_class, as_object):
        assert result.metrics["test_accuracy"] > 0.8
    assert as_object.model is module
    folder = as_object.save(tmp_path / "m")
    with pytest.raises(ValueError, match="given as an object"):
        artifact.load(folder)
    again = artifact.load(folder, Net({"width": 32}, shape))
    row = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}
    np.testing.assert_array_equal(again.predict_rows([row]), as_object.predict([row]))


def test_a_module_that_does_not_fit_is_told_with_shapes() -> None:
    said = r"model Linear does not fit the Dataset: called with \(2, 4\) float32 it raised RuntimeError: mat1 and mat2"
    with pytest.raises(UserError, match=said):
        quick().fit(nn.Linear(5, 3), load_iris(return_X_y=True))
    said = r"called with \(2, 4\) float32 it answered \(2, 7\), not \(2, 3\)"
    with pytest.raises(UserError, match=said):
        quick().fit(nn.Linear(4, 7), load_iris(return_X_y=True))


@pytest.mark.parametrize("dataset", [42, (np.zeros((5, 2)), np.zeros(4)), (np.zeros(5), np.zeros(5))])
def test_what_is_no_dataset(dataset: object) -> None:
    with pytest.raises(UserError, match=r"dataset must be|x must be"):
        quick().fit("mlp", dataset)


def test_autotune_measures_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "alternatives", lambda _: iter([("micro_rows", [8])]))
    speeds = {0: 1.0, 8: 2.0}
    monkeypatch.setattr(autotune, "measure", lambda plan, rows: len(rows.frame("train")) * speeds[plan.micro_rows])
    result = quick(autotune=True, epochs=1).fit("mlp", load_iris(return_X_y=True))
    assert result.steps == 4
    with pytest.raises(UserError, match="autotune builds model and batches many times"):
        quick(autotune=True).fit(nn.Linear(4, 3), load_iris(return_X_y=True))


@pytest.mark.slow
@pytest.mark.cluster
def test_two_workers_train_as_one_does() -> None:
    """On Ray, which the trainer starts and ends."""
    arrays = load_iris(return_X_y=True)
    alone = quick(epochs=4).fit("mlp", arrays, config={"dropout": 0.0})
    both = DistributedTrainer("cpu", num_workers=2, threads=1, epochs=4, batch_size=32, learning_rate=1e-2).fit(
        "mlp", arrays, config={"dropout": 0.0}
    )
    assert both.steps == alone.steps
    assert both.metrics["test_loss"] == pytest.approx(alone.metrics["test_loss"], rel=1e-2)
    assert len(both.history) == 4
    row = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}
    np.testing.assert_allclose(both.predict([row]), alone.predict([row]), rtol=1e-2)


def test_several_workers_need_a_model_with_a_name() -> None:
    with pytest.raises(UserError, match="other processes must build the model too"):
        DistributedTrainer("cpu", num_workers=2).fit(nn.Linear(4, 3), load_iris(return_X_y=True))
