"""Which row goes to which part: seeded, by class where asked, and never the same text in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from mizzen_api.contract import SPLITS
from mizzen_api.dataset import Split


def assign(keys: Sequence[str], labels: Sequence[str], split: Split) -> list[str]:
    """A part of contract.SPLITS for each row.

    Rows with equal `keys` (exact duplicates) form one group, and a group stays together: otherwise the test
    split would hold rows that training has seen. Groups are ordered by a seeded hash of their key, not by
    their place in the file, and each class is cut at the wanted fractions.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    strata: dict[str, list[str]] = defaultdict(list)
    for key, rows in groups.items():
        strata[labels[rows[0]] if split.stratify else ""].append(key)
    parts = [""] * len(keys)
    for stratum in strata.values():
        stratum.sort(key=lambda key: _shuffle_key(split.seed, key))
        total = sum(len(groups[key]) for key in stratum)
        ends = (split.train * total, (split.train + split.validation) * total)
        placed = 0
        for key in stratum:
            middle = placed + len(groups[key]) / 2
            part = SPLITS[0] if middle <= ends[0] else SPLITS[1] if middle <= ends[1] else SPLITS[2]
            for row in groups[key]:
                parts[row] = part
            placed += len(groups[key])
    return parts


def _shuffle_key(seed: int, key: str) -> bytes:
    return hashlib.blake2b(key.encode(), key=seed.to_bytes(8, "big"), digest_size=16).digest()
