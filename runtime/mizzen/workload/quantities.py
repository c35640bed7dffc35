"""Kubernetes' quantities as numbers."""

from __future__ import annotations

import re

_SCALES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def amount(quantity: str) -> float:
    """The number that a quantity of the API stands for: 0.5 for 500m, 1024 for 1Ki. ValueError where it is none."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?|[KMGTPE]i)", quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity of Kubernetes")
    return float(found[1]) * _SCALES[found[2]]
