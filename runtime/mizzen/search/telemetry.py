"""What a running search tells: counts and the best trial, from the callbacks of Ray Tune to the Progress."""

from __future__ import annotations

from mizzen.search.record import SearchRecord
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.searchjob import SearchJobSpec
from mizzen_api.workload import SearchReport


class Telemetry:
    """The state of the search, published whenever a trial starts or ends."""

    def __init__(self, board: ProgressBoard, record: SearchRecord, spec: SearchJobSpec, model: str) -> None:
        self.board, self.record, self.spec, self.model = board, record, spec, model
        self.running: set[str] = set()

    @property
    def left(self) -> int:
        return self.spec.max_trial_count - len(self.record.trials)

    @property
    def over(self) -> bool:
        return self.record.goal_reached or too_many_failed(self.record, self.spec)

    def publish(self) -> None:
        counts = self.record.counts(len(self.running))
        for state, count in counts.model_dump().items():
            self.board.gauge(contract.METRIC_SEARCH_TRIALS, count, state=state)
        self.board.update(
            search=SearchReport(
                trials=counts,
                current_optimal_trial=self.record.optimal(),
                model=self.model,
                progress_percentage=100 * len(self.record.trials) // self.spec.max_trial_count,
            )
        )


def too_many_failed(record: SearchRecord, spec: SearchJobSpec) -> bool:
    return len(record.failed) >= max(1, spec.max_failed_trial_count)
