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
LOOKS = 24  # measurements in a run
AUTOTUNE = 1.15


@dataclass(frozen=True)
class Race:
    name: str
    plan: TrainPlan  # constant
    progressive: Progressive
    data: Callable[[], object]


def races() -> list[Race]:
    """A part of the rows, so that three seeds of both end within minutes on two cores."""
    images = TrainPlan(
        "resnet", {"depth": 10, "width": 16}, "", "", 4e-3, epochs=4, batch_size=128, threads=2, train_fraction=0.4
    )
    texts = TrainPlan(
        "text-transformer", {"num_layers": 4}, "", "", 2e-3, epochs=4, batch_size=128, threads=2, train_fraction=0.5
    )
    resized = Progressive(image_size=Ramp(14, 28), until=0.75)
    stacked = Progressive(batch_size=Ramp(128, 512), depth=Ramp(1, 4), schedule="seesaw", until=0.6)
    return [
        Race("Fashion-MNIST, ResNet-10, images from 14 pixels to 28", images, resized, train_data.fashion),
        Race("tweets, transformer, blocks from 1 to 4 and Seesaw", texts, stacked, train_data.tweets),
    ]


def progressive(options: Options) -> list[Row]:
    """To half a point below what the constant run has in the end; that many seconds of training, without measuring."""
    rows = []
    for race in races():
        seeds = SEEDS[:1] if options.short else SEEDS
        pairs = [_pair(race, seed) for seed in seeds]
        times = [(reached(grown, mark), reached(constant, mark)) for constant, grown, mark in pairs]
        ratios = [theirs / ours for ours, theirs in times]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ends = [(grown[-1][1], constant[-1][1]) for constant, grown, _ in pairs]
        mine, its = (statistics.median(column) for column in zip(*ends, strict=True))
        mark = statistics.median(mark for _, _, mark in pairs)
        rows += [
            Row(f"{race.name}: to {mark:.1%}", "s", ours, peer=theirs, peer_name="constant"),
            Row("times sooner", "×", statistics.median(ratios), TARGET, "min", samples=ratios),
            Row("accuracy in the end", "", mine, peer=its, peer_name="constant"),
        ]
    return rows


Curve = list[tuple[float, float]]


def _pair(race: Race, seed: int) -> tuple[Curve, Curve, float]:
    constant = curve(race, replace(race.plan, seed=seed))
    return constant, curve(race, replace(race.plan, seed=seed, progressive=race.progressive)), constant[-1][1] - 0.005


def reached(found: Curve, mark: float) -> float:
    """Seconds until the validation split was that accurate; infinite: never."""
    return next((seconds for seconds, accuracy in found if accuracy >= mark), float("inf"))


def curve(race: Race, plan: TrainPlan) -> Curve:
    """Training seconds and accuracy on the validation split, some times in the run and at its end."""
    loop = Loop(plan, dataset=race.data())  # type: ignore[arg-type]
    rows = len(loop.train_part) * plan.epochs
    spent, found = 0.0, Curve()
    began = time.perf_counter()
    for _ in loop.steps():
        if loop.state.samples * LOOKS >= rows * (len(found) + 1):
            spent += time.perf_counter() - began
            found.append((spent, loop.evaluate(SPLITS[1])["accuracy"]))
            began = time.perf_counter()
    return found


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
