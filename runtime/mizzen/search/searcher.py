"""Which trial comes next: Optuna's samplers behind Ray Tune's Searcher, knowing what earlier heads found out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from mizzen.search.record import FinishedTrial
from mizzen_api.searchjob import Algorithm, Objective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Trials at random before the estimator has something to estimate from; Optuna's default suits far longer searches.
TPE_STARTUP_TRIALS = 5


class AskTellSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Ask Optuna for points, tell it results. Ray's own OptunaSearch pickles its state; ours is the trials' record."""

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        objective: Objective,
        algorithm: Algorithm,
        earlier: Sequence[FinishedTrial] = (),
    ) -> None:
        super().__init__(metric=objective.metric, mode="max" if objective.type == "maximize" else "min")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A restarted search must not ask the same points again, so the seed depends on how many there were.
        seed = algorithm.seed + len(earlier)
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if algorithm.name == "random"
            else optuna.samplers.TPESampler(seed=seed, n_startup_trials=TPE_STARTUP_TRIALS, constant_liar=True)
        )
        self._study = optuna.create_study(direction=objective.type, sampler=sampler)
        self._space = space
        self._open: dict[str, optuna.Trial] = {}
        for trial in earlier:
            if objective.metric in trial.metrics:
                self._study.add_trial(
                    create_trial(
                        params={name: trial.parameters[name] for name in space},
                        distributions=space,
                        value=trial.metrics[objective.metric],
                        state=TrialState.COMPLETE,
                    )
                )

    def suggest(self, trial_id: str) -> dict[str, Any]:
        trial = self._study.ask(self._space)
        self._open[trial_id] = trial
        return dict(trial.params)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._open.pop(trial_id)
        value = (result or {}).get(self.metric)
        if error or value is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record of finished trials is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `earlier`."""
