"""A dataset version as one self-contained page, and the same content as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.data.report.adapter import read_report, report_of
from mizzen.data.report.view import Report
from mizzen_api import contract

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Rendered", "Report", "read_report", "render", "report_of"]


@dataclass(frozen=True)
class Rendered:
    html: str
    json: str

    def write(self, folder: Path) -> None:
        """Beside the data of a version."""
        (folder / contract.DATASET_REPORT).write_text(self.html, encoding="utf-8")
        (folder / contract.DATASET_REPORT_JSON).write_text(self.json, encoding="utf-8")


def render(report: Report) -> Rendered:
    """HTML without scripts, links or requests, whose texts are all escaped; the same report gives the same bytes."""
    return Rendered(_template().render(report=report), report.to_json() + "\n")


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from mizzen.data.report import page, plots
    from mizzen.data.report import wording as words

    environment = Environment(
        loader=PackageLoader("mizzen.data.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(plots=plots, page=page, words=words)
    environment.filters.update(number=words.number, quantity=words.quantity, percent=words.percent, short=words.short)
    return environment.get_template("page.html.j2")
