"""Decides what the group does next. Pure: news and a clock go in, orders come out; Ray is not known here.

    waiting ──▶ running ──▶ holding ──▶ (held by all) ──▶ waiting ──▶ running, with others
                   └──────▶ breaking ─▶ (halted or dead) ─▶ waiting
                   └──────▶ over

Like the operator it is level-triggered: news only changes what is known, and `_decide` looks at all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from mizzen.train.group import messages as m
from mizzen.train.group.messages import Failure, Fault, Order, Outcome, Settings
from mizzen.train.group.roster import Member, Phase, Place, Standing

SILENT_SECONDS = 2.0  # after which a member that hangs is not asked to halt, but killed
MOST_BACKOFF_SECONDS = 60.0


class Controller:
    """One run's group. `handle` is called by one thread only."""

    def __init__(
        self, settings: Settings, now: float, *, restarts: int = 0, lost_steps: int = 0, furthest: int = 0
    ) -> None:
        """`restarts`, `lost_steps` and `furthest` (step) are what earlier drivers of the run counted."""
        self.settings, self.phase = settings, Phase.WAITING
        self.members: dict[int, Member] = {}
        self.places: dict[str, Place] = {}
        self.group: tuple[int, ...] = ()
        self.generation = 0
        self.restarts, self.lost_steps = restarts, lost_steps
        self.furthest = furthest
        self._made = 0
        self._since = now  # of the phase
        self._gang_since = now  # patience of the first start counts from here; later ones need none
        self._hold: m.Hold | None = None
        self._causes: list[Failure] = []  # of the present break
        self._lost: set[str] = set()  # addresses of members that are gone in this generation
        self._aborted: tuple[str, ...] | None = None  # what the ranks were last told of these
        self._blamed: set[str] = set()  # places whose members died: if Ray says that the node did, it is forgiven
        self._failures, self._failed_at = 0, -1
        self._trouble = now if furthest else None  # since when: the end of another driver is some
        self._said = ""
        self._stop = False
        self._finished: m.Finished | None = None

    def handle(self, news: m.News, now: float) -> list[Order]:
        """Take note of news, and say what to do."""
        orders = list(self._note(news, now))
        while not self.is_over:
            before = self.phase, len(orders)
            orders += self._decide(now)
            if (self.phase, len(orders)) == before:
                break
        return orders

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.OVER

    def has_left(self, address: str) -> bool:
        """Whether a pod that was told to go may go: nothing of the run is there any more."""
        return self.is_over or not any(member.address == address for member in self.members.values())

    @property
    def workers(self) -> int:
        return len(self.group) if self.phase in (Phase.RUNNING, Phase.HOLDING) else 0

    # What is known.

    def _note(self, news: m.News, now: float) -> Iterator[Order]:
        match news:
            case m.NodeUp(place, address):
                known = self.places.setdefault(place, Place(address))
                known.up = True
            case m.NodeDown(place):
                yield from self._node_down(place)
            case m.Notice(address):
                for where in self.places.values():
                    where.leaving |= where.address == address
            case m.Scale(least, most):
                self.settings = replace(self.settings, least=least, most=most)
            case m.Stop():
                self._stop = True
            case m.Tick():
                pass
            case m.Gone():
                yield from self._gone(news, now)
            case _:
                member = self.members.get(news.member)
                if member is not None:
                    member.heard = now
                    yield from self._of_member(member, news, now)

    def _of_member(self, member: Member, news: m.News, now: float) -> Iterator[Order]:
        if isinstance(news, m.Ready):
            member.stand(Standing.READY, now, member.step)
        elif isinstance(news, m.Broke) and member.standing is Standing.STARTING:
            yield from self._failed(member, news.failure, now)
        elif getattr(news, "generation", -1) == self.generation and member.number in self.group:
            yield from self._of_rank(member, news, now)

    def _of_rank(self, member: Member, news: m.News, now: float) -> Iterator[Order]:
        """News of a member of the present group."""
        match news:
            case m.Began(_, _, step, source):
                member.step = step
                if member.number == self.group[0]:
                    yield from self._began(step, source)
            case m.Beat():
                yield from self._beat(member, news, now)
            case m.Refused(_, _, step) if self.phase is Phase.HOLDING and self._hold and step >= self._hold.step:
                member.step = max(member.step, step)
                yield self._hold_at(step)
            case m.Held(_, _, step) if self._hold is not None and step == self._hold.step:
                member.stand(Standing.HELD, now, step)
            case m.Finished():
                member.stand(Standing.FINISHED, now, news.step)
                self.furthest = max(self.furthest, news.step)
                if news.metrics or self._finished is None:
                    self._finished = news
            case m.Broke(_, _, step, failure):
                member.stand(Standing.READY, now, step)
                self.furthest = max(self.furthest, step)
                if failure.fault is not Fault.PEER:
                    yield from self._failed(member, failure, now)

    def _beat(self, member: Member, beat: m.Beat, now: float) -> Iterator[Order]:
        member.step, member.idle, member.usual = beat.step, beat.idle, beat.usual
        self.furthest = max(self.furthest, beat.step)
        if self.phase is not Phase.RUNNING:
            return
        if beat.steps_here and self._trouble is not None:
            yield m.Recovered(now - self._trouble, self.lost_steps, self.restarts)
            self._trouble = None
        if beat.step > self._failed_at:
            self.places[member.place].failures = 0
            yield from self._say("")

    def _began(self, step: int, source: str) -> Iterator[Order]:
        lost = max(0, self.furthest - step)
        self.lost_steps += lost
        self.furthest = step
        if lost:
            yield from self._say(f"went on from step {step} ({source}); {lost} steps are done again", news=True)

    def _failed(self, member: Member, failure: Failure, now: float) -> Iterator[Order]:
        """Its process is not to be trusted any more."""
        yield from self._blame(member, failure)
        self._drop(member, now)
        yield m.Kill(member.number)

    def _blame(self, member: Member, failure: Failure) -> Iterator[Order]:
        """What befalls one that is on its way to others who train is told, and not counted."""
        if member.number in self.group or self.phase is Phase.WAITING:
            self._causes.append(failure)
        else:
            yield from self._say(f"a worker at {member.address} could not start: {failure.text}", news=True)

    def _gone(self, news: m.Gone, now: float) -> Iterator[Order]:
        member = self.members.get(news.member)
        if member is None:
            return
        idle = member.standing is Standing.READY and member.number not in self.group
        if member.leaving or idle or not news.counts:
            yield from self._say(news.why, news=True)
        else:
            self._blamed.add(member.place)
            yield from self._blame(member, Failure(Fault.OWN, news.why))
        self._drop(member, now)
        yield m.Kill(news.member)  # what does not answer may live on

    def _node_down(self, name: str) -> Iterator[Order]:
        """Nobody's failure: what was taken for one is forgiven."""
        place = self.places.pop(name, None)
        if name in self._blamed and self._failures:
            self._failures -= 1
        self._blamed.discard(name)
        for member in [one for one in self.members.values() if one.place == name]:
            yield m.Kill(member.number)  # it may run on, cut off from Ray
            del self.members[member.number]
            if place is not None:
                self._lost.add(place.address)

    def _drop(self, member: Member, now: float) -> None:
        del self.members[member.number]
        self._lost.add(member.address)
        place = self.places.get(member.place)
        if place is not None:
            place.failures += 1
            backoff = 0.0 if place.failures <= 1 else 2.0 ** (place.failures - 1)
            place.not_before = now + min(backoff, MOST_BACKOFF_SECONDS)

    # What to do.

    def _decide(self, now: float) -> Iterator[Order]:
        yield from self._staff(now)
        if self.phase in (Phase.RUNNING, Phase.HOLDING):
            yield from self._watch(now)
        elif self.phase is Phase.BREAKING:
            yield from self._wait_for_halt(now)
        if self.phase is Phase.WAITING:
            yield from self._judge()
        if self.phase is Phase.WAITING:
            yield from self._form(now)

    def _staff(self, now: float) -> Iterator[Order]:
        """A member for each place, up to `most`; none where the pod is about to go."""
        taken = {member.place for member in self.members.values()}
        for name, place in self.places.items():
            if place.leaving:
                yield from self._clear(name)
            elif (
                name not in taken
                and place.up
                and now >= place.not_before
                and len(self.members) < self.settings.most
                and not self._stop
            ):
                self._made += 1
                self.members[self._made] = Member(self._made, name, place.address, since=now, heard=now)
                yield m.Start(self._made, name, place.address)

    def _clear(self, name: str) -> Iterator[Order]:
        """Members in the group leave it at a step first."""
        for member in [one for one in self.members.values() if one.place == name]:
            member.leaving = True
            if member.number not in self.group:
                del self.members[member.number]
                yield m.Kill(member.number)

    def _watch(self, now: float) -> Iterator[Order]:
        ranks = [self.members[number] for number in self.group if number in self.members]
        if len(ranks) < len(self.group) or any(rank.standing is Standing.READY for rank in ranks):
            yield from self._break(now)
        elif all(rank.standing is Standing.FINISHED for rank in ranks):
            done = self._finished
            yield from self._end(Outcome(self.furthest, done.metrics if done else {}))
        elif hanging := [rank for rank in ranks if self._hangs(rank, now)]:
            yield from self._hung(hanging, now)
        elif self.phase is Phase.HOLDING:
            yield from self._holding(ranks, now)
        elif self._change_is_due(ranks, now):
            self._hold = m.Hold(self.generation, self.group, 0, self._must_save(ranks))
            self.phase, self._since = Phase.HOLDING, now
            yield self._hold_at(max(self._reckoned(rank, now) for rank in ranks))

    def _holding(self, ranks: list[Member], now: float) -> Iterator[Order]:
        assert self._hold is not None
        if self._must_save(ranks) and not self._hold.save:
            self._hold = replace(self._hold, save=True)
            yield self._hold_at(max(self._reckoned(rank, now) for rank in ranks))
        elif all(rank.standing in (Standing.HELD, Standing.FINISHED) for rank in ranks):
            for rank in ranks:
                self.furthest = max(self.furthest, rank.step)
                rank.stand(Standing.READY, now, rank.step)
            self._leave_group(now)

    def _must_save(self, ranks: list[Member]) -> bool:
        return self._stop or any(rank.leaving for rank in ranks)

    def _change_is_due(self, ranks: list[Member], now: float) -> bool:
        if any(rank.standing is Standing.FINISHED for rank in ranks):
            return False
        if self._must_save(ranks) or len(ranks) > self.settings.most:
            return True
        waiting = [one for one in self.members.values() if one.standing is Standing.READY and not one.leaving]
        if not waiting or len(ranks) >= self.settings.most:
            return False
        on_the_way = any(one.standing is Standing.STARTING for one in self.members.values())
        return not on_the_way or now - min(one.since for one in waiting) >= self.settings.join_patience

    def _reckoned(self, rank: Member, now: float) -> int:
        """The step that a rank is at by now."""
        return rank.step + (int((now - rank.heard) / rank.usual) if rank.usual else 0)

    def _hold_at(self, reached: int) -> Order:
        """A step that all ranks have still before them, as far as is known; one that has not refuses."""
        assert self._hold is not None
        usual = [member.usual for member in self.members.values() if member.usual]
        margin = 2 + (math.ceil(0.1 / min(usual)) if usual else 0)
        self._hold = replace(self._hold, step=max(self._hold.step + 1, reached + margin))
        for number in self.group:
            if self.members[number].standing is Standing.HELD:
                self.members[number].standing = Standing.BUSY
        return self._hold

    def _leave_group(self, now: float) -> None:
        self.group, self._hold, self._finished = (), None, None
        self.phase, self._since, self._gang_since = Phase.WAITING, now, -math.inf

    def _hangs(self, rank: Member, now: float) -> bool:
        """Nothing comes of it for far longer than usual."""
        if rank.standing is not Standing.BUSY:
            return False
        limit = self.settings.first_patience
        if rank.usual is not None:
            limit = max(self.settings.stall_floor, self.settings.stall_factor * rank.usual)
        silence = now - rank.heard  # compilers and loaders may keep a process from answering, but not for ever
        return rank.idle + silence > limit or silence > 2 * self.settings.stall_floor

    def _hung(self, hanging: list[Member], now: float) -> Iterator[Order]:
        """All ranks wait where one hangs. One that does not even answer is killed; of the others, who does not halt."""
        for rank in hanging:
            if now - rank.heard > SILENT_SECONDS:
                yield from self._failed(rank, Failure(Fault.OWN, self._hang_text(rank, now)), now)
        yield from self._break(now)

    def _hang_text(self, rank: Member, now: float) -> str:
        return f"the worker at {rank.address} hung for {rank.idle + now - rank.heard:.0f} s after step {rank.step}"

    def _break(self, now: float) -> Iterator[Order]:
        self.phase, self._since = Phase.BREAKING, now
        self._trouble = self._trouble if self._trouble is not None else now
        self._aborted = None
        yield from self._abort()

    def _abort(self) -> Iterator[Order]:
        """Once, and again whenever another peer is found to be lost."""
        still = tuple(number for number in self.group if self._is_in_it(number))
        here = {self.members[number].address for number in still}
        lost = tuple(sorted(self._lost - here))
        if still and lost != self._aborted:
            self._aborted = lost
            yield m.Abort(self.generation, still, lost)

    def _is_in_it(self, number: int) -> bool:
        return number in self.members and self.members[number].standing is not Standing.READY

    def _wait_for_halt(self, now: float) -> Iterator[Order]:
        still = [self.members[number] for number in self.group if self._is_in_it(number)]
        for rank in [one for one in still if one.standing is not Standing.BUSY]:
            rank.stand(Standing.READY, now, rank.step)  # held or finished: nothing binds it
            still.remove(rank)
        if still and now - self._since > self.settings.stop_patience:
            for rank in still:
                yield from self._failed(rank, Failure(Fault.OWN, self._hang_text(rank, now)), now)
            still = []
        if still:
            yield from self._abort()
        else:
            self._leave_group(now)
            self.restarts += 1

    def _judge(self) -> Iterator[Order]:
        """Count failures without progress; those of the user end the run at once."""
        causes, self._causes = self._causes, []
        users = [cause for cause in causes if cause.fault is Fault.USER]
        if users:
            yield from self._end(Outcome(self.furthest, failure=users[0]))
        elif causes:
            self._failures = self._failures + 1 if self.furthest <= self._failed_at else 1
            self._failed_at = max(self._failed_at, self.furthest)
            count = f"{self._failures} times" if self._failures > 1 else "once"
            text = f"workers failed {count} at step {self.furthest}, the last time: {causes[0].text}"
            if self._failures >= self.settings.failures:
                yield from self._end(Outcome(self.furthest, failure=Failure(Fault.OWN, text)))
            else:
                yield from self._say(f"{text}; they start again", news=True)

    def _form(self, now: float) -> Iterator[Order]:
        if self._stop:
            yield from self._end(Outcome(self.furthest, stopped=True))
            return
        ready = [one for one in self.members.values() if one.standing is Standing.READY and not one.leaving]
        enough = len(ready) >= self.settings.most or (
            len(ready) >= self.settings.least and now - self._gang_since >= self.settings.patience
        )
        if not enough:
            if len(ready) < self.settings.least and self._failed_at < self.furthest:  # else there is worse to tell
                yield from self._say(f"{len(ready)} of at least {self.settings.least} workers are ready")
            return
        ready = ready[: self.settings.most]
        self.generation += 1
        self.group = tuple(one.number for one in ready)
        self.phase, self._since = Phase.RUNNING, now
        self._lost.clear()
        for one in ready:
            one.stand(Standing.BUSY, now, one.step)
        yield m.Form(self.generation, self.group)

    def _say(self, text: str, *, news: bool = False) -> Iterator[Order]:
        if news or text != self._said:
            self._said = text
            yield m.Say(text)

    def _end(self, outcome: Outcome) -> Iterator[Order]:
        self.phase = Phase.OVER
        yield outcome
