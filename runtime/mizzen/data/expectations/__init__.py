"""What rows must be like: checks that count chunk by chunk and merge, and that keep broken rows aside with reasons."""

from mizzen.data.expectations.build import build
from mizzen.data.expectations.checks import Check, RowCheck
from mizzen.data.expectations.expression import compile_expression
from mizzen.data.expectations.results import Outcome, Result, Sample
from mizzen.data.expectations.suite import REASONS, ROW, Sifted, Suite

__all__ = [
    "REASONS",
    "ROW",
    "Check",
    "Outcome",
    "Result",
    "RowCheck",
    "Sample",
    "Sifted",
    "Suite",
    "build",
    "compile_expression",
]
