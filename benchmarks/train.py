"""How fast and how safe training is: `python benchmarks/train.py`, beside loops by hand and plain Ray Train.

`--only PART` runs one of the parts below. The short form leaves out what cannot be had within a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import harness
import train_compression
import train_progressive
import train_recovery
import train_speed
import train_staleness
from harness import Options, Row

PARTS: dict[str, Callable[[Options], list[Row]]] = {
    "overhead": train_speed.overhead,
    "scaling": train_speed.scaling,
    "stall": train_speed.stall,
    "recovery": train_recovery.recovery,
    "progressive": train_progressive.progressive,
    "autotune": train_progressive.autotuned,
    "compression": train_compression.bytes_and_accuracy,
    "slow-link": train_compression.through_a_slow_link,
    "staleness": train_staleness.staleness,
}
SHORT = ("overhead", "scaling", "stall")


def measure(options: Options) -> list[Row]:
    wanted = [PART] if PART else [name for name in PARTS if not options.short or name in SHORT]
    return [row for name in wanted for row in PARTS[name](options)]


if __name__ == "__main__":
    PART = ""
    if "--only" in sys.argv:
        at = sys.argv.index("--only")
        PART = sys.argv[at + 1]
        del sys.argv[at : at + 2]
        if PART not in PARTS:
            raise SystemExit(f"there is no part {PART!r}; there are {', '.join(PARTS)}")
    harness.main("training", measure, ["mizzen", "torch", "ray"])
