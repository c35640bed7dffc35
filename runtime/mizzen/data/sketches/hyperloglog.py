"""HyperLogLog: how many different values there are, in 4 KiB, with a standard error of 1.6 %."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mizzen.data.sketches.hashing import Numbers, pack, unpack

P = 12
REGISTERS = 1 << P
STANDARD_ERROR = 1.04 / math.sqrt(REGISTERS)
_RANKS = 64 - P + 1  # ranks are 1.._RANKS; 0 is a register that nothing has reached
_SPARSE = REGISTERS // 4


class HyperLogLog:
    """Flajolet et al. 2007 on 64-bit hashes, with Ertl's estimator (2017), which needs no corrections for small counts.

    The state depends on the set of hashes alone: merging in any order gives the same bits.
    """

    def __init__(self, registers: Numbers | None = None) -> None:
        self.registers = np.zeros(REGISTERS, np.uint8) if registers is None else registers

    def add(self, hashes: Numbers) -> None:
        """Add uint64 hashes, repetitions or not."""
        # Few hashes still raise a register when some thousand have been added; so few need the slow part.
        for part in (hashes[:1024], hashes[1024:8192], hashes[8192:]):
            index = (part >> np.uint64(64 - P)).astype(np.int64)
            tail = part << np.uint64(P)
            highest = np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> self.registers.astype(np.uint64)
            raising = np.flatnonzero(tail <= highest[index])
            # 53 bits, which a float holds exactly; the last one is set, so that no tail is zero.
            bits = (tail[raising] >> np.uint64(11)) | np.uint64(1)
            _, length = np.frexp(bits.astype(np.float64))
            np.maximum.at(self.registers, index[raising], (54 - length).astype(np.uint8))

    def merge(self, other: HyperLogLog) -> None:
        np.maximum(self.registers, other.registers, out=self.registers)

    def estimate(self) -> float:
        counts = np.bincount(self.registers, minlength=_RANKS + 1).astype(np.float64)
        z = REGISTERS * _tau(1 - counts[_RANKS] / REGISTERS)
        for rank in range(_RANKS - 1, 0, -1):
            z = 0.5 * (z + counts[rank])
        z += REGISTERS * _sigma(counts[0] / REGISTERS)
        return 0.0 if math.isinf(z) else float(REGISTERS**2 / (2 * math.log(2)) / z)

    def to_json(self) -> dict[str, Any]:
        reached = np.flatnonzero(self.registers)
        if len(reached) < _SPARSE:
            return {"at": pack(reached.astype(np.uint16)), "ranks": pack(self.registers[reached])}
        return {"ranks": pack(self.registers)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> HyperLogLog:
        ranks = unpack(document["ranks"], np.uint8)
        if "at" not in document:
            return cls(ranks)
        sketch = cls()
        sketch.registers[unpack(document["at"], np.uint16)] = ranks
        return sketch


def _sigma(x: float) -> float:
    """Ertl 2017, algorithm 6."""
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before, z, y = z, z + x * y, y + y
    return z


def _tau(x: float) -> float:
    """Ertl 2017, algorithm 6."""
    if x in (0, 1):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = math.sqrt(x)
        y *= 0.5
        before, z = z, z - (1 - x) ** 2 * y
    return z / 3
