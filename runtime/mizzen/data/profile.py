"""What a dataset version looks like in numbers: the reference that serving compares its traffic with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mizzen.data.store import Part


def profile(parts: Mapping[str, Part], classes: Sequence[str], undecodable: int) -> dict[str, Any]:
    """Rows, class counts and the histogram of text lengths (in tokens) of each split."""
    return {
        "rows": sum(len(part) for part in parts.values()),
        "undecodableLines": undecodable,
        "splits": {
            name: {"rows": len(part), "classes": _classes(part, classes), "lengths": _lengths(part)}
            for name, part in parts.items()
        },
    }


def _classes(part: Part, classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(part.labels.tolist())
    return {name: counts[index] for index, name in enumerate(classes)}


def _lengths(part: Part) -> dict[str, Any]:
    """`counts[n]` is the number of texts with n tokens; n is at most maxLength."""
    counts = np.bincount(part.lengths, minlength=part.ids.shape[1] + 1)
    return {"mean": round(float(part.lengths.mean()), 3) if len(part) else 0.0, "counts": counts.tolist()}
