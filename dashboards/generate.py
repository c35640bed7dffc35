"""`make manifests`: write the Grafana dashboard from contract.METRICS' names. With --check, only say what differs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
)
from queries import (  # type: ignore[import-not-found,unused-ignore]  # beside this file
    batch_rows,
    dataset_rows,
    error_ratio,
    in_flight,
    latency,
    predictions_by_class,
    reconcile_errors,
    reconcile_latency,
    requests_by_code,
    requests_by_variant,
    training_bytes,
    training_checkpoint_age,
    training_loss,
    training_lost_steps,
    training_progress,
    training_rate,
    training_recovery,
    training_restarts,
    training_workers,
    trials,
)

UID = "mizzen-overview"
HERE = Path(__file__).parent
TARGETS = (HERE / "mizzen.json", HERE.parent / "charts" / "mizzen" / "dashboards" / "mizzen.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Panel = Any  # the SDK has no common type of panels
Query = tuple[str, str]  # expression, legend
MINE = "__name__=~'mizzen_.+'"


def build() -> str:
    """The dashboard as JSON: what serving, models, training and the operator do, from top to bottom."""
    board = (
        dashboard.Dashboard("Mizzen")
        .uid(UID)
        .tags(["mizzen", "mlops"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_labels("namespace", f"label_values({{{MINE}}}, namespace)"))
        .with_variable(
            _labels("name", 'label_values({__name__=~"mizzen_.+", namespace=~"$namespace"}, mizzen_dev_name)')
        )
    )
    for title, panels in ROWS:
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel())
    return str(JSONEncoder(sort_keys=True, indent=2).encode(board.build())) + "\n"


def _labels(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .query(query)
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def lines(title: str, about: str, unit: str, *queries: Query) -> Callable[[], Panel]:
    def build_panel() -> Panel:
        legend = (
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        panel = timeseries.Panel().title(title).description(about).unit(unit).min(0).datasource(SOURCE).legend(legend)
        return _with(panel.span(8).height(8), queries)

    return build_panel


def number(title: str, about: str, unit: str, query: Query) -> Callable[[], Panel]:
    def build_panel() -> Panel:
        panel = stat.Panel().title(title).description(about).unit(unit).datasource(SOURCE)
        return _with(panel.span(8).height(4), (query,))

    return build_panel


def _with(panel: Panel, queries: tuple[Query, ...]) -> Panel:
    for position, (expression, legend) in enumerate(queries):
        target = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + position))
        panel = panel.with_target(target)
    return panel


ROWS: tuple[tuple[str, tuple[Callable[[], Panel], ...]], ...] = (
    (
        "Service",
        (
            number("Errors", "Part of the requests that ended with a 5xx.", "percentunit", (error_ratio(), "errors")),
            number("Latency p99", "Over all variants.", "s", (latency(0.99), "p99")),
            number("In flight", "Queued and running; the autoscaler's signal.", "short", (in_flight(), "{{variant}}")),
            lines("Requests by code", "", "reqps", (requests_by_code(), "{{code}}")),
            lines("Latency", "", "s", *((latency(q, "variant"), f"p{q * 100:g} {{{{variant}}}}") for q in (0.5, 0.99))),
            lines(
                "Rows in a batch",
                "Mean; near 1 means that nothing waits for others.",
                "short",
                (batch_rows(), "{{variant}}"),
            ),
        ),
    ),
    (
        "Model",
        (
            lines(
                "Requests by variant",
                "The split that the canary asks for.",
                "reqps",
                (requests_by_variant(), "{{variant}}"),
            ),
            lines(
                "Predictions by class",
                "A shift without a change of the model is drift.",
                "percentunit",
                (predictions_by_class(), "{{variant}} {{predicted}}"),
            ),
        ),
    ),
    (
        "Training and search",
        (
            lines("Progress", "", "percentunit", (training_progress(), "{{mizzen_dev_name}}")),
            lines("Loss", "", "short", (training_loss(), "{{mizzen_dev_name}}")),
            lines("Workers", "", "short", (training_workers(), "{{mizzen_dev_name}}")),
            lines("Rows per second", "", "short", (training_rate(), "{{mizzen_dev_name}}")),
            lines("Gradients sent", "By each worker.", "Bps", (training_bytes(), "{{mizzen_dev_name}}")),
            lines(
                "Failures",
                "Groups formed anew, and steps done again.",
                "short",
                (training_restarts(), "{{mizzen_dev_name}} restarts"),
                (training_lost_steps(), "{{mizzen_dev_name}} lost steps"),
            ),
            lines(
                "Recovery and checkpoints",
                "The last recovery's duration; the age of what a lost head would go on from.",
                "s",
                (training_recovery(), "{{mizzen_dev_name}} recovery"),
                (training_checkpoint_age(), "{{mizzen_dev_name}} checkpoint age"),
            ),
            lines("Trials", "", "short", (trials(), "{{mizzen_dev_name}} {{state}}")),
            lines("Rows read", "", "short", (dataset_rows(), "{{mizzen_dev_name}}")),
        ),
    ),
    (
        "Operator",
        (
            lines("Reconciliation p99", "", "s", (reconcile_latency(0.99), "{{kind}}")),
            lines("Reconciliations that failed", "They are tried again.", "ops", (reconcile_errors(), "{{kind}}")),
        ),
    ),
)


def main() -> int:
    text = build()
    stale = [path for path in TARGETS if not path.exists() or path.read_text() != text]
    for path in stale:
        name = path.relative_to(HERE.parent)
        if "--check" in sys.argv:
            print(f"{name} is stale: run `make manifests`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
