"""The documents between operator and workloads survive the wire and the 4 KiB of a termination message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mizzen_api.conditions import USER_ERRORS, Reason
from mizzen_api.contract import TERMINATION_LOG_LIMIT
from mizzen_api.searchjob import Trial
from mizzen_api.trainingjob import ModelVersion, TrainerStatus
from mizzen_api.workload import DatasetReport, Progress, SearchReport, TrainingReport


@given(st.text(max_size=9000), st.sampled_from(Reason))
def test_termination_message_fits_and_keeps_all_but_the_message(message: str, reason: Reason) -> None:
    report = TrainingReport(
        trainer_status=TrainerStatus(step=812, metrics={"test_accuracy": 0.77}),
        model_version=ModelVersion(name="tweets", version=4, uri="models:/tweets/4"),
    )
    text = Progress(state="Failed", reason=reason, message=message, training=report).to_termination_message()
    assert len(text.encode()) <= TERMINATION_LOG_LIMIT
    read = Progress.from_termination_message(text)
    assert read is not None
    assert read.reason == reason
    assert read.training == report
    assert read.retryable == (reason not in USER_ERRORS)


def test_another_programs_last_words_are_not_progress() -> None:
    assert Progress.from_termination_message("Segmentation fault") is None
    assert Progress.from_termination_message("") is None


@given(st.text(max_size=9000), st.lists(st.text(max_size=60), max_size=400))
def test_classes_that_do_not_fit_are_counted_and_nothing_else_of_a_version_is_lost(
    message: str, classes: list[str]
) -> None:
    report = DatasetReport(rows=70_000, fingerprint="sha256:" + "a" * 64, uri="file:///artifacts/d", classes=classes)
    text = Progress(
        state="Succeeded", reason=Reason.SUCCEEDED, message=message, dataset=report
    ).to_termination_message()
    assert len(text.encode()) <= TERMINATION_LOG_LIMIT
    read = Progress.from_termination_message(text)
    assert read is not None
    assert read.dataset is not None
    kept = len(read.dataset.classes)
    assert read.dataset.classes == classes[:kept]
    assert read.dataset.classes_left_out == len(classes) - kept
    assert read.dataset.model_copy(update={"classes": classes, "classes_left_out": 0}) == report


def test_as_many_classes_are_kept_as_fit() -> None:
    names = [f"class-{number:05}" for number in range(2000)]
    report = DatasetReport(classes=names)
    text = Progress(state="Succeeded", message="done", dataset=report).to_termination_message()
    assert TERMINATION_LOG_LIMIT - 20 < len(text.encode()) <= TERMINATION_LOG_LIMIT
    read = Progress.from_termination_message(text)
    assert read is not None
    assert read.message == "done"


def test_a_report_that_is_too_long_for_any_cut_still_tells_how_it_ended() -> None:
    trial = Trial(name="t", parameters={f"p{number}": "x" * 100 for number in range(64)})
    report = SearchReport(current_optimal_trial=trial)
    text = Progress(state="Failed", reason=Reason.TRIALS_FAILED, message="m", search=report).to_termination_message()
    assert len(text.encode()) <= TERMINATION_LOG_LIMIT
    read = Progress.from_termination_message(text)
    assert read is not None
    assert (read.state, read.reason, read.search) == ("Failed", Reason.TRIALS_FAILED, None)


def test_numbers_that_json_cannot_say_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    status = TrainerStatus(step=7, samples_per_second=inf, metrics={"loss": nan, "accuracy": 0.5})
    trial = Trial(name="t", parameters={"dim": 2}, metrics={"loss": -inf, "accuracy": 0.25})
    progress = Progress(
        state="Succeeded",
        dataset=DatasetReport(rows_per_second=nan),
        training=TrainingReport(trainer_status=status),
        search=SearchReport(current_optimal_trial=trial),
    )
    read = Progress.from_termination_message(progress.to_termination_message())
    assert read is not None
    assert read.training == TrainingReport(trainer_status=TrainerStatus(step=7, metrics={"accuracy": 0.5}))
    assert read.search is not None
    assert read.search.current_optimal_trial == Trial(name="t", parameters={"dim": 2}, metrics={"accuracy": 0.25})
