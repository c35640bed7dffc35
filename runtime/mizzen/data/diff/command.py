"""`mizzen data diff`: two references in, tables or JSON out, and an exit code as diff gives it."""

from __future__ import annotations

import sys

from rich.console import Console

from mizzen.data.diff.compare import compare_versions
from mizzen.data.diff.snapshot import locate
from mizzen.data.diff.tables import render
from mizzen.errors import MizzenError

DIFFERENT, TROUBLE = 1, 2


def run(a: str, b: str, artifacts: str, namespace: str, output: str, *, exit_code: bool) -> int:
    if output not in {"text", "json"}:
        print(f"--output {output}: say text or json", file=sys.stderr)
        return TROUBLE
    try:
        diff = compare_versions(locate(a, artifacts, namespace), locate(b, artifacts, namespace))
    except MizzenError as error:
        print(error.message, file=sys.stderr)
        return TROUBLE
    if output == "json":
        print(diff.to_json())
    else:
        Console(highlight=False).print(render(diff))
    return DIFFERENT if exit_code and not diff.same else 0
