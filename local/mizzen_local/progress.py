"""What `mizzen up` shows: one line for each step with how long it took, and a spinner on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Step:
    """`note` adds what is worth knowing to the finished line."""

    def __init__(self) -> None:
        self.detail = ""

    def note(self, text: str) -> None:
        self.detail = text


class Progress:
    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        began, step = time.monotonic(), Step()
        try:
            if self.console.is_terminal:
                with self.console.status(f"{title} ..."):
                    yield step
            else:
                yield step
        except BaseException:
            self.console.print(f"[red]✗[/red] {title}  [dim]{time.monotonic() - began:.1f}s[/dim]")
            raise
        detail = f"  [dim]{step.detail}[/dim]" if step.detail else ""
        self.console.print(f"[green]✓[/green] {title}{detail}  [dim]{time.monotonic() - began:.1f}s[/dim]")

    def say(self, text: str) -> None:
        self.console.print(text)
