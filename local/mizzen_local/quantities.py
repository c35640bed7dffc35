"""Resource quantities as exact numbers that print as the real server prints them. Pure.

`objects.quantity` is a float, for what compares and plans; sums that a user reads back come from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering

FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SUFFIX_WRONG = "unable to parse quantity's suffix"
_NUMBER_WRONG = "unable to parse numeric part of quantity"
_NANO = 10**9
_PARTS = re.compile(r"([+-]?)([0-9.]*)([eEinumkKMGTP]*[-+]?[0-9]*)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()}


@total_ordering
@dataclass(frozen=True, eq=False)
class Quantity:
    """An amount in whole billionths; `format` is how it was written and how it will be: decimal, binary or exponent."""

    nanos: int = 0
    format: str = "decimal"

    @classmethod
    def parse(cls, text: str | float) -> Quantity:
        """Raises ValueError in the words of the real server. What is finer than a billionth is rounded up."""
        text = str(text).strip()
        if text == "0":
            return cls()
        parts = _PARTS.fullmatch(text)
        if not text or parts is None:
            raise ValueError(FORMAT_WRONG)
        sign, number, suffix = parts.groups()
        whole, _, fraction = number.partition(".")
        if "." in fraction:
            raise ValueError(FORMAT_WRONG)
        if not whole and not fraction:
            raise ValueError(_NUMBER_WRONG if not suffix or number else FORMAT_WRONG)
        tens, twos, format_ = _suffix(suffix)
        scaled = int(whole + fraction or "0") << twos
        tens += 9 - len(fraction)
        nanos = scaled * 10**tens if tens >= 0 else -(-scaled // 10**-tens)
        return cls(-nanos if sign == "-" else nanos, format_)

    @classmethod
    def count(cls, number: int) -> Quantity:
        return cls(number * _NANO)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    @property
    def whole(self) -> Quantity:
        """Rounded up to a whole number."""
        return Quantity(-(-self.nanos // _NANO) * _NANO, self.format)

    def __str__(self) -> str:
        """The shortest form without a fraction; binary suffixes only for whole numbers from 1024 on."""
        if not self.nanos:
            return "0"
        sign, number = ("-" if self.nanos < 0 else ""), abs(self.nanos)
        if self.format == "binary" and number >= 1024 * _NANO and number % _NANO == 0:
            amount, power = number // _NANO, 0
            while amount % 1024 == 0 and power < 60:
                amount, power = amount // 1024, power + 10
            return f"{sign}{amount}{_BINARY_SUFFIX.get(power, '')}"
        power = -9
        while number % 1000 == 0 and (self.format == "exponent" or power < 18):
            number, power = number // 1000, power + 3
        if self.format == "exponent":
            return f"{sign}{number}e{power}" if power else f"{sign}{number}"
        return f"{sign}{number}{_DECIMAL_SUFFIX[power]}"


Amounts = dict[str, Quantity]


def amounts(listed: Mapping[str, str] | None) -> Amounts:
    """A ResourceList with its amounts read."""
    return {name: Quantity.parse(value) for name, value in (listed or {}).items()}


def texts(listed: Amounts) -> dict[str, str]:
    return {name: str(value) for name, value in listed.items()}


def plus(left: Amounts, right: Amounts) -> Amounts:
    return {**right, **{name: value + right[name] if name in right else value for name, value in left.items()}}


def greatest(left: Amounts, right: Amounts) -> Amounts:
    return {**right, **{name: max(value, right[name]) if name in right else value for name, value in left.items()}}


def only(listed: Amounts, names: Iterable[str]) -> Amounts:
    wanted = set(names)
    return {name: value for name, value in listed.items() if name in wanted}


def _suffix(text: str) -> tuple[int, int, str]:
    """(powers of ten, powers of two, format) of what stands behind the number."""
    if text in _DECIMAL:
        return _DECIMAL[text], 0, "decimal"
    if text in _BINARY:
        return 0, _BINARY[text], "binary"
    if re.fullmatch(r"[eE][+-]?[0-9]{1,4}", text):
        return int(text[1:]), 0, "exponent"
    raise ValueError(_SUFFIX_WRONG)
