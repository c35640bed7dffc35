"""A model server with the fake predictor: `python served.py HOST PORT [broken] [internal=PORT]`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from mizzen.serve.app import Settings
from mizzen.serve.command import run
from mizzen.serve.predictor import Predictor
from tests.runtime.serve.fakes import LengthPredictor


def load() -> Predictor:
    if "broken" in sys.argv:
        raise ValueError("model.safetensors is not there")
    return LengthPredictor()


if __name__ == "__main__":
    settings = Settings(model_name="tweets", model_version="4", variant="candidate")
    internal = [int(argument.removeprefix("internal=")) for argument in sys.argv if argument.startswith("internal=")]
    sys.exit(run(settings, load, sys.argv[1], int(sys.argv[2]), "models:/tweets/4", *internal))
