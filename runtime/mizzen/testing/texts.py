"""Changes of a text that should not change what is said of it."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable

Change = Callable[[str], str]
_SHORTEST = 4  # letters of a word that a typo may be in: shorter ones become other words


def upper_case(text: str) -> str:
    return text.upper()


def lower_case(text: str) -> str:
    return text.lower()


def title_case(text: str) -> str:
    return text.title()


def extra_spaces(text: str) -> str:
    """Twice as many between words, and one at both ends."""
    return f" {text.replace(' ', '  ')} "


def typo(seed: int = 0) -> Change:
    """A change that swaps two neighbouring letters within one word; the same text always gets the same one."""

    def typo(text: str) -> str:
        places = [
            at
            for word in re.finditer(rf"[^\W\d_]{{{_SHORTEST},}}", text)
            for at in range(word.start() + 1, word.end() - 2)
            if text[at] != text[at + 1]
        ]
        if not places:
            return text
        at = random.Random(zlib.crc32(text.encode()) + seed).choice(places)  # noqa: S311 (nothing secret)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]

    return typo
