"""Time to a fixed accuracy with sizes that grow, against a constant batch; and what autotune gains on ResNets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import train_data
from harness import Options, Row

from mizzen.train import autotune
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.schedule import Progressive, Ramp
from mizzen_api.contract import SPLITS

SEEDS = (1, 2, 3)
TARGET = 1.3
LOOKS = 24  # measurements of the validation split in a run; their time does not count
AUTOTUNE = 1.15


@dataclass(frozen=True)
class Race:
    name: str
    accuracy: float  # to be reached
    plan: TrainPlan  # constant
    progressive: Progressive
    data: Callable[[], object]


def races() -> list[Race]:
    images = TrainPlan("resnet", {"depth": 10, "width": 16}, "", "", 4e-3, epochs=4, batch_size=128, threads=2)
    texts = TrainPlan("text-transformer", {"num_layers": 4}, "", "", 2e-3, epochs=4, batch_size=128, threads=2)
    grown = Progressive(batch_size=Ramp(128, 512), image_size=Ramp(14, 28), schedule="seesaw", until=0.6)
    longer = Progressive(batch_size=Ramp(128, 512), depth=Ramp(1, 4), schedule="seesaw", until=0.6)
    return [
        Race("Fashion-MNIST, ResNet-10: resizing and Seesaw", 0.915, images, grown, train_data.fashion),
        Race("tweets, transformer: depth and Seesaw", 0.78, texts, longer, train_data.tweets),
    ]


def progressive(options: Options) -> list[Row]:
    rows = []
    for race in races():
        seeds = SEEDS[:1] if options.short else SEEDS
        constant = [seconds_to(race, replace(race.plan, seed=seed)) for seed in seeds]
        grown = [seconds_to(race, replace(race.plan, seed=seed, progressive=race.progressive)) for seed in seeds]
        ratios = [a[0] / b[0] for a, b in zip(constant, grown, strict=True)]
        rows += [
            Row(
                f"{race.name}: to {race.accuracy:.1%}", "s", _median(grown, 0), peer=_median(constant, 0),
                peer_name="constant", samples=[round(found[0], 1) for found in grown],
            ),
            Row(f"{race.name}: times sooner", "×", statistics.median(ratios), TARGET, "min", samples=ratios),
            Row(f"{race.name}: the end", "", _median(grown, 1), peer=_median(constant, 1), peer_name="constant"),
        ]  # fmt: skip
    return rows


def seconds_to(race: Race, plan: TrainPlan) -> tuple[float, float]:
    """Training seconds until the validation split is that accurate (infinite: never), and the accuracy in the end."""
    loop = Loop(plan, dataset=race.data())  # type: ignore[arg-type]
    rows = len(loop.train_part) * plan.epochs
    spent, reached, looks, accuracy = 0.0, float("inf"), 0, 0.0
    began = time.perf_counter()
    for _ in loop.steps():
        if loop.state.samples * LOOKS >= rows * (looks + 1):
            looks += 1
            spent += time.perf_counter() - began
            accuracy = loop.evaluate(SPLITS[1])["accuracy"]
            if accuracy >= race.accuracy:
                reached = min(reached, spent)
            began = time.perf_counter()
    return reached, accuracy


def _median(found: list[tuple[float, float]], at: int) -> float:
    return statistics.median(one[at] for one in found)


def autotuned(options: Options) -> list[Row]:
    """Against what one would set by hand: channels-last and bf16, the batch whole, as many threads as cores."""
    rows = []
    for depth in (18,) if options.short else (18, 50):
        hand = TrainPlan(
            "resnet", {"depth": depth}, "", "", 1e-3, batch_size=64, threads=2, precision="bf16", channels_last=True
        )
        plain = replace(hand, precision="fp32", channels_last=False, autotune=True)
        dataset = train_data.fashion()
        found = autotune.search(plain, partial(autotune.measure, dataset=dataset), patience=600.0)
        chosen = replace(plain, **found.chosen)
        ratios, speeds = [], []
        for _ in range(3):
            best = autotune.measure(chosen, dataset)
            by_hand = autotune.measure(hand, dataset)
            speeds.append((best, by_hand))
            ratios.append(best / by_hand)
        best, by_hand = (statistics.median(column) for column in zip(*speeds, strict=True))
        settings = ", ".join(f"{name} {value}" for name, value in found.chosen.items())
        rows += [
            Row(f"ResNet-{depth}, autotune ({settings})", "rows/s", best, peer=by_hand, peer_name="by hand"),
            Row(f"ResNet-{depth}, autotune against by hand", "×", statistics.median(ratios), AUTOTUNE, "min"),
            Row(f"ResNet-{depth}, autotune against the defaults", "×", found.gain),
        ]
    return rows
