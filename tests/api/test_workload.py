"""The documents between operator and workloads survive the wire and the 4 KiB of a termination message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mizzen_api.conditions import USER_ERRORS, Reason
from mizzen_api.contract import TERMINATION_LOG_LIMIT
from mizzen_api.trainingjob import ModelVersion, TrainerStatus
from mizzen_api.workload import Progress, TrainingReport


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
