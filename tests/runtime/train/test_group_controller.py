"""What the controller decides, by news and a clock that the tests turn."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from mizzen.train.group import messages as m
from mizzen.train.group.controller import Controller
from mizzen.train.group.messages import Failure, Fault, Outcome, Settings

PEER, OWN = Failure(Fault.PEER, "connection reset"), Failure(Fault.OWN, "ValueError: no luck")


class Script:
    """A controller whose members are numbered from 1; member n is at place "n" with address "a<n>"."""

    def __init__(self, least: int = 1, most: int = 2, **settings: float) -> None:
        self.now = 0.0
        self.controller = Controller(Settings(least=least, most=most, **settings), self.now)  # type: ignore[arg-type]

    def tell(self, *news: m.News, after: float = 0.0) -> list[m.Order]:
        self.now += after
        return [order for one in news or (m.Tick(),) for order in self.controller.handle(one, self.now)]

    def up(self, *numbers: int) -> list[m.Order]:
        return self.tell(*(m.NodeUp(str(number), f"a{number}") for number in numbers))

    def training(self, *numbers: int, step: int = 10) -> Script:
        """These members have formed the first group, and are at a step."""
        self.up(*numbers)
        self.tell(*(m.Ready(number) for number in numbers))
        if not self.controller.group:
            self.tell(after=self.controller.settings.patience)
        self.tell(*(m.Began(number, 1, 0) for number in numbers))
        self.beat(*numbers, step=step)
        return self

    def beat(
        self, *numbers: int, step: int, usual: float = 0.1, idle: float = 0.0, after: float = 0.0
    ) -> list[m.Order]:
        generation = self.controller.generation
        return self.tell(*(m.Beat(n, generation, step, idle, usual, step) for n in numbers), after=after)

    def held(self, *numbers: int, step: int) -> list[m.Order]:
        return self.tell(*(m.Held(number, self.controller.generation, step) for number in numbers))


T = TypeVar("T")


def of(kind: type[T], orders: list[m.Order]) -> list[T]:
    return [order for order in orders if isinstance(order, kind)]


def test_nothing_trains_below_the_least() -> None:
    script = Script(least=2, most=3)
    assert of(m.Start, script.up(1)) == [m.Start(1, "1", "a1")]
    assert not of(m.Form, script.tell(m.Ready(1), after=1000.0))
    script.up(2)
    assert of(m.Form, script.tell(m.Ready(2))) == [m.Form(1, (1, 2))]


def test_fewer_than_the_most_wait_for_more_a_while() -> None:
    script = Script(least=1, most=2, patience=5.0)
    script.up(1)
    assert not of(m.Form, script.tell(m.Ready(1), after=4.0))
    assert of(m.Form, script.tell(after=1.0)) == [m.Form(1, (1,))]


def test_survivors_go_on_at_once() -> None:
    script = Script(most=2).training(1, 2)
    orders = script.tell(m.Broke(1, 1, 10, PEER))
    assert of(m.Abort, orders) == [m.Abort(1, (2,))]
    orders = script.tell(m.Gone(2, "lost"))
    assert of(m.Form, orders) == [m.Form(2, (1,))]
    assert of(m.Start, orders) == [m.Start(3, "2", "a2")], "another one starts in its place"


def test_survivors_below_the_least_wait_for_the_next() -> None:
    script = Script(least=2, most=2).training(1, 2)
    assert not of(m.Form, script.tell(m.Gone(2, "lost"), m.Broke(1, 1, 10, PEER)))
    assert of(m.Form, script.tell(m.Ready(3))) == [m.Form(2, (1, 3))]


def test_the_address_of_a_lost_peer_is_cut_from_the_other_side() -> None:
    script = Script(most=3).training(1, 2, 3)
    assert of(m.Abort, script.tell(m.Gone(2, "lost"))) == [m.Abort(1, (1, 3), ("a2",))]
    assert of(m.Abort, script.tell(m.Gone(3, "lost"))) == [m.Abort(1, (1,), ("a2", "a3"))]


def test_one_that_comes_later_joins_at_a_step_that_all_have_before_them() -> None:
    script = Script(most=2).training(1)
    script.up(2)
    (hold,) = of(m.Hold, script.tell(m.Ready(2)))
    assert hold.step > 10
    assert not hold.save
    (later,) = of(m.Hold, script.tell(m.Refused(1, 1, hold.step + 4)))
    assert later.step > hold.step + 4, "it was told too late"
    assert not script.held(1, step=hold.step)
    assert of(m.Form, script.held(1, step=later.step)) == [m.Form(2, (1, 2))]


def test_a_refusal_that_comes_after_a_peer_is_lost_changes_nothing() -> None:
    script = Script(most=3).training(1, 2)
    script.up(3)
    (hold,) = of(m.Hold, script.tell(m.Ready(3)))
    script.tell(m.Gone(2, "lost"))
    assert not of(m.Hold, script.tell(m.Refused(1, 1, hold.step + 4)))


def test_those_that_are_on_their_way_join_together() -> None:
    script = Script(most=3, join_patience=10.0).training(1)
    script.up(2, 3)
    assert not of(m.Hold, script.tell(m.Ready(2)))
    assert of(m.Hold, script.tell(m.Ready(3)))
    script = Script(most=3, join_patience=10.0).training(1)
    script.up(2, 3)
    script.tell(m.Ready(2))
    script.beat(1, step=20, after=9.0)
    assert of(m.Hold, script.beat(1, step=22, after=1.0)), "nobody waits for ever"


def test_a_pod_that_is_taken_away_leaves_after_a_checkpoint() -> None:
    script = Script(most=2).training(1, 2)
    (hold,) = of(m.Hold, script.tell(m.Notice("a2")))
    assert hold.save
    assert not script.controller.has_left("a2")
    script.held(1, step=hold.step)
    orders = script.held(2, step=hold.step)
    assert of(m.Form, orders) == [m.Form(2, (1,))]
    assert of(m.Kill, orders) == [m.Kill(2)]
    assert script.controller.has_left("a2")
    assert not of(m.Start, script.tell(after=10.0)), "nobody starts on a node that goes"


def test_a_notice_while_the_group_holds_for_another_reason_is_saved_too() -> None:
    script = Script(most=2).training(1)
    script.up(2)
    (hold,) = of(m.Hold, script.tell(m.Ready(2)))
    (saving,) = of(m.Hold, script.tell(m.Notice("a1")))
    assert saving.save
    assert saving.step > hold.step


def test_the_last_pod_leaves_and_the_run_waits() -> None:
    script = Script(most=1).training(1)
    (hold,) = of(m.Hold, script.tell(m.Notice("a1")))
    orders = script.held(1, step=hold.step)
    assert of(m.Kill, orders) == [m.Kill(1)]
    assert not of(m.Form, orders)
    script.up(2)
    assert of(m.Form, script.tell(m.Ready(2))) == [m.Form(2, (2,))]


def test_one_that_hangs_and_does_not_answer_is_killed() -> None:
    script = Script(most=2, stall_floor=5.0, stall_factor=10.0).training(1, 2)
    assert not script.beat(1, step=11, idle=4.0, after=4.0)
    orders = script.beat(1, step=11, idle=5.5, after=1.5)
    assert of(m.Kill, orders) == [m.Kill(2)]
    assert of(m.Abort, orders) == [m.Abort(1, (1,), ("a2",))]


def test_of_ranks_that_all_wait_the_one_that_does_not_halt_is_killed() -> None:
    script = Script(most=2, stall_floor=5.0, stop_patience=3.0).training(1, 2)
    orders = script.beat(1, 2, step=11, idle=5.5)
    assert of(m.Abort, orders) == [m.Abort(1, (1, 2))]
    assert not of(m.Kill, script.tell(m.Broke(1, 1, 11, PEER), after=1.0))
    orders = script.tell(after=2.5)
    assert of(m.Kill, orders) == [m.Kill(2)]
    assert of(m.Form, orders) == [m.Form(2, (1,))]


def test_slow_steps_and_first_steps_are_no_hangs() -> None:
    script = Script(most=1, stall_floor=5.0, stall_factor=10.0, first_patience=500.0).training(1)
    assert not script.beat(1, step=11, usual=2.0, idle=19.0)
    assert of(m.Abort, script.beat(1, step=11, usual=2.0, idle=21.0))
    script = Script(most=1, stall_floor=5.0, first_patience=500.0).training(1)
    assert not script.tell(m.Beat(1, 1, 11, 499.0, None, 0))


def fail(script: Script, member: int, step: int) -> list[m.Order]:
    return script.tell(m.Broke(member, script.controller.generation, step, OWN))


def test_a_bug_at_the_same_step_ends_the_run_with_its_words() -> None:
    script = Script(most=1, failures=3).training(1)
    for member in (1, 2):
        orders = fail(script, member, 10)
        assert of(m.Kill, orders) == [m.Kill(member)]
        assert not of(Outcome, orders)
        script.tell(after=60.0)
        script.tell(m.Ready(member + 1))
        script.tell(m.Began(member + 1, script.controller.generation, 10, "snapshot"))
    (outcome,) = of(Outcome, fail(script, 3, 10))
    assert outcome.failure == Failure(
        Fault.OWN, "workers failed 3 times at step 10, the last time: ValueError: no luck"
    )


def test_failures_between_which_the_run_gets_on_do_not_end_it() -> None:
    script = Script(most=1, failures=2).training(1)
    for member in range(1, 8):
        assert not of(Outcome, fail(script, member, 10 * member))
        script.tell(after=60.0)
        script.tell(m.Ready(member + 1))


def test_lost_nodes_do_not_count() -> None:
    script = Script(most=1, failures=2).training(1)
    for member in range(1, 8):
        assert not of(Outcome, script.tell(m.Gone(member, "lost"), m.NodeDown(str(member))))
        script.up(member + 1)
        script.tell(m.Ready(script.controller._made))


def test_nodes_that_go_while_the_run_waits_do_not_count() -> None:
    script = Script(least=2, most=2, failures=1)
    for number in range(1, 6):
        script.up(number)
        assert not of(Outcome, script.tell(m.Ready(number), m.Gone(number, "lost")))
        assert not of(Outcome, script.tell(m.NodeDown(str(number))))
        script.controller._made = number
    script = Script(least=1, most=1, failures=1).training(1)
    assert not of(Outcome, script.tell(m.Gone(1, "was lost with its node", counts=False)))


def test_an_error_of_the_user_ends_the_run_at_once() -> None:
    wrong = Failure(Fault.USER, "the loss is nan", "TrainingDiverged")
    script = Script(most=2).training(1, 2)
    orders = script.tell(m.Broke(1, 1, 10, wrong), m.Broke(2, 1, 10, wrong))
    assert of(Outcome, orders) == [Outcome(10, failure=wrong)]
    assert script.tell(m.Ready(3)) == [], "it is over"


def test_one_that_cannot_start_while_others_train_is_told_and_not_counted() -> None:
    script = Script(most=2, failures=1).training(1)
    script.up(2)
    orders = script.tell(m.Broke(2, 0, 0, OWN))
    assert of(m.Say, orders) == [m.Say("a worker at a2 could not start: ValueError: no luck")]
    assert of(m.Start, orders), "tried again at once"
    orders = script.tell(m.Broke(3, 0, 0, OWN))
    assert not of(m.Start, orders), "and then less often"
    assert of(m.Start, script.beat(1, step=20, after=2.0))


@pytest.mark.parametrize("training", [True, False])
def test_a_stop_ends_the_run_after_a_checkpoint(training: bool) -> None:
    script = Script(least=1, most=1)
    if not training:
        assert of(Outcome, script.tell(m.Stop())) == [Outcome(0, stopped=True)]
        return
    (hold,) = of(m.Hold, script.training(1).tell(m.Stop()))
    assert hold.save
    assert of(Outcome, script.held(1, step=hold.step)) == [Outcome(hold.step, stopped=True)]


def test_the_end_has_the_metrics_of_rank_0() -> None:
    script = Script(most=2).training(1, 2)
    assert not of(Outcome, script.tell(m.Finished(1, 1, 40, {"test_loss": 0.5})))
    assert of(Outcome, script.tell(m.Finished(2, 1, 40))) == [Outcome(40, {"test_loss": 0.5})]


def test_news_of_a_former_generation_is_old() -> None:
    script = Script(most=2).training(1, 2)
    script.tell(m.Gone(2, "lost"), m.Broke(1, 1, 10, PEER))
    assert not script.tell(m.Broke(1, 1, 10, OWN), m.Finished(1, 1, 10))


def test_fewer_are_wanted() -> None:
    script = Script(most=3).training(1, 2, 3)
    (hold,) = of(m.Hold, script.tell(m.Scale(1, 2)))
    assert of(m.Form, script.held(1, 2, 3, step=hold.step)) == [m.Form(2, (1, 2))]
    assert not script.tell(after=5.0)


def test_what_a_failure_cost_is_told_at_the_first_step_after_it() -> None:
    script = Script(most=1).training(1, step=18)
    script.tell(m.Gone(1, "lost"))
    script.tell(m.Ready(2), after=4.0)
    orders = script.tell(m.Began(2, 2, 15, "snapshot"))
    assert of(m.Say, orders) == [m.Say("went on from step 15 (snapshot); 3 steps are done again")]
    assert of(m.Recovered, script.tell(m.Beat(2, 2, 16, 0.0, None, 1), after=0.5)) == [m.Recovered(4.5, 3, 1)]


def test_what_the_end_of_a_driver_cost_is_told_by_the_next() -> None:
    controller = Controller(Settings(1, 1), 0.0, restarts=1, furthest=48)
    controller.handle(m.NodeUp("1", "a1"), 1.0)
    controller.handle(m.Ready(1), 5.0)
    controller.handle(m.Began(1, 1, 45, "snapshot"), 6.0)
    assert controller.handle(m.Beat(1, 1, 46, 0.0, None, 1), 7.0)[:1] == [m.Recovered(7.0, 3, 1)]


@dataclass
class Simulated:
    """A member that obeys its orders, unless it is dead."""

    number: int
    place: str
    ready_in: int
    generation: int = 0
    step: int = 0
    in_group: bool = False
    hold: int | None = None
    told_held: int = -1
    alive: bool = True


@dataclass
class World:
    """Members that step together, nodes that come and go; every turn is a tenth of a second."""

    seed: int
    total: int = 60
    members: dict[int, Simulated] = field(default_factory=dict)
    places: dict[str, bool] = field(default_factory=dict)  # whether its death is still news
    durable: int = 0

    def run(self) -> Outcome:
        rng = random.Random(self.seed)
        controller = Controller(Settings(least=2, most=4, patience=1.0, failures=6), 0.0)
        news: list[m.News] = [m.NodeUp(str(n), f"a{n}") for n in range(3)]
        self.places = dict.fromkeys((str(n) for n in range(3)), True)
        for turn in range(4000):
            news.append(m.Tick())
            group: tuple[int, ...] = controller.group
            rng.shuffle(news)
            for one in news:
                for order in controller.handle(one, turn / 10):
                    if isinstance(order, Outcome):
                        return order
                    self.obey(order, rng)
                self.check(controller)
            news = self.disturb(rng) if turn < 600 else []
            news += self.turn(controller.group if group == controller.group else ())
        raise AssertionError(f"seed {self.seed}: stuck in {controller.phase} with {controller.members}")

    def obey(self, order: m.Order, rng: random.Random) -> None:
        alive = [one for one in self.members.values() if one.alive]
        match order:
            case m.Start(number, place):
                self.members[number] = Simulated(number, place, rng.randint(1, 30), alive=place in self.places)
            case m.Form(generation, numbers):
                assert len(numbers) >= 2, "below the least"
                step = max((self.members[n].step for n in numbers if self.members[n].alive), default=0)
                for n in numbers:
                    one = self.members[n]
                    one.generation, one.in_group, one.hold, one.told_held = generation, True, None, -1
                    one.step = max(step, self.durable)
            case m.Hold(generation, numbers, step):
                for one in alive:
                    if one.number in numbers and one.generation == generation:
                        one.hold = max(step, one.hold or 0)
            case m.Abort(generation, numbers):
                for one in alive:
                    if one.number in numbers and one.generation == generation and one.in_group:
                        one.hold = -1
            case m.Kill(number) if number in self.members:
                self.members[number].alive = False

    def disturb(self, rng: random.Random) -> list[m.News]:
        found: list[m.News] = []
        alive = [one for one in self.members.values() if one.alive]
        if alive and rng.random() < 0.02:
            victim = rng.choice(alive)
            victim.alive = False
            found.append(m.Gone(victim.number, "killed"))
        if rng.random() < 0.02:
            name = str(len(self.places) + 1000 * self.seed + rng.randint(10, 10**6))
            self.places[name] = True
            found.append(m.NodeUp(name, f"a{name}"))
        if len(self.places) > 3 and rng.random() < 0.02:
            name = rng.choice(sorted(self.places))
            if rng.random() < 0.5:
                found.append(m.Notice(f"a{name}"))
            else:
                del self.places[name]
                for one in alive:
                    if one.place == name:
                        one.alive = False
                found.append(m.NodeDown(name))
        return found

    def turn(self, group: tuple[int, ...]) -> list[m.News]:
        """Ranks step when all of them are there; one that misses a peer says so."""
        found: list[m.News] = []
        for one in list(self.members.values()):
            if one.alive and one.ready_in > 0:
                one.ready_in -= 1
                if not one.ready_in:
                    found.append(m.Ready(one.number))
        ranks = [self.members[number] for number in group]
        whole = bool(ranks) and all(one.alive and one.in_group and one.hold != -1 for one in ranks)
        for one in [rank for rank in ranks if rank.alive and rank.in_group]:
            if not whole:
                one.in_group = False
                found.append(m.Broke(one.number, one.generation, one.step, PEER))
            elif one.step >= self.total:
                found.append(m.Finished(one.number, one.generation, one.step, {"loss": 1.0}))
            elif one.hold is not None and one.step >= one.hold:
                if one.told_held != one.hold:
                    one.told_held = one.hold
                    kind = m.Held if one.step == one.hold else m.Refused
                    found.append(kind(one.number, one.generation, one.step))
            else:
                one.step += 1
                found.append(m.Beat(one.number, one.generation, one.step, 0.0, 0.1, 1))
        self.durable = max([self.durable, *(one.step - 5 for one in ranks)])
        return found

    def check(self, controller: Controller) -> None:
        places = [member.place for member in controller.members.values()]
        assert len(places) == len(set(places)), "two members at one place"
        assert len(controller.group) <= 4


@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes_and_goes_the_run_ends(seed: int) -> None:
    outcome = World(seed).run()
    assert outcome.failure is None
    assert outcome.step == 60
