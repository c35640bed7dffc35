"""Runs a training on the group: feeds the controller with news until it says how it ended."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.train.group import messages as m
from mizzen.train.group.base import BaseGroup, Listener, Past
from mizzen.train.group.controller import Controller
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.member import Letter
from mizzen.train.group.messages import Outcome, Settings
from mizzen.train.group.nodes import Slots
from mizzen.train.group.process_group import Formation, Rendezvous

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan
    from mizzen.train.strategies.parameter_server.run import ServedGroup

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 1024 * 1024


class Group(BaseGroup):
    """Trains in step: a controller decides, nodes do."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        host: str,
        *,
        slots: Slots | None = None,
        listener: Listener | None = None,
        past: Past | None = None,
    ) -> None:
        """`host` is an address of this process that all nodes reach. Ray is connected already."""
        super().__init__(job, slots, listener)
        past = past or Past()
        self._rendezvous = Rendezvous(host)
        self._attempt = secrets.token_hex(4)
        self.controller = Controller(
            settings,
            time.monotonic(),
            restarts=past.restarts,
            lost_steps=past.lost_steps,
            furthest=past.furthest,
        )
        self._workers = -1

    def has_left(self, address: str) -> bool:
        return self.controller.has_left(address)

    def _turn(self) -> None:
        self._handle(m.Tick())
        super()._turn()
        if self.controller.workers != self._workers:
            self._workers = self.controller.workers
            self._listener.on_workers(self._workers)

    def _handle(self, news: m.News) -> None:
        if not isinstance(news, m.Tick | m.Beat):
            log.debug("%s", news)
        if isinstance(news, m.Began) and self.controller.group[:1] == (news.member,):
            self._listener.on_began(len(self.controller.group), news.step, news.source)
        for order in self.controller.handle(news, time.monotonic()):
            self._do(order)

    def _do(self, order: m.Order) -> None:
        log.debug("%s", order)
        match order:
            case m.Start():
                self._nodes.start(order)
            case m.Form(generation, members):
                self._nodes.form(members, lambda rank: self._formation(generation, rank, len(members)))
            case m.Hold():
                self._nodes.hold(order)
            case m.Abort():
                self._nodes.abort(order)
            case m.Kill(member):
                self._nodes.kill(member)
            case m.Say(text):
                self._listener.say(text)
            case m.Recovered():
                self._listener.on_recovered(order)
            case Outcome():
                self._outcome = order

    def _formation(self, generation: int, rank: int, world: int) -> Formation:
        name = f"{self._attempt}.{generation}"
        return Formation(generation, rank, world, name, self._rendezvous.host, self._rendezvous.port)

    def _letter(self, number: int, letter: Letter) -> None:
        for report in letter.reports:
            self._listener.on_report(report)
        if number in self.controller.group:
            kept = letter.kept
            self._listener.on_kept(kept.snapshot, kept.checkpoint, kept.trouble or letter.note)


def group_of(
    job: Job,
    settings: Settings,
    host: str,
    *,
    slots: Slots | None = None,
    listener: Listener | None = None,
    past: Past | None = None,
) -> BaseGroup:
    """What the plan's strategy runs on: a group that trains in step, or workers of a parameter server."""
    kind: type[Group | ServedGroup] = Group
    if job.plan.get("strategy") == "parameter-server" and not job.function:
        from mizzen.train.strategies.parameter_server.run import ServedGroup

        kind = ServedGroup
    return kind(job, settings, host, slots=slots, listener=listener, past=past)


def run_group(
    plan: TrainPlan,
    workers: int,
    run_folder: Path,
    *,
    least: int = 1,
    function: str = "",
    listener: Listener | None = None,
) -> Outcome:
    """Train on so many processes of this machine; goes on with fewer, from `least` on, where some are lost.

    The trained model is in `run_folder`/final. Uses the Ray that is connected, or starts one.
    """
    import ray

    keeping = Keeping(uuid.uuid4().hex, "", snapshot_every=plan.snapshot_every, checkpoint_every=plan.checkpoint_every)
    job = Job(plan.to_dict(), keeping, str(run_folder), function=function)
    run_folder.mkdir(parents=True, exist_ok=True)
    with _local_ray(workers):
        host = ray.util.get_node_ip_address()
        slots = slots_of(plan.accelerator, workers)
        return group_of(job, Settings(least, workers), host, slots=slots, listener=listener).run()


def slots_of(accelerator: str, per_node: int) -> Slots:
    """Members that share a node; each takes one of its devices, where it has some."""
    from mizzen.train import accelerators

    row = accelerators.select(accelerator)
    devices = 1 if row.resource else 0
    return Slots(per_node, {"num_cpus": 1 if per_node == 1 else 1 / per_node, **accelerators.ray_options(row, devices)})


@contextlib.contextmanager
def _local_ray(workers: int) -> Iterator[None]:
    """Ray on this machine alone, unless there is one."""
    import ray

    from mizzen.workload.ray_head import lean_environment

    if ray.is_initialized():
        yield
        return
    lean_environment()
    ray.init(
        "local", num_cpus=workers, include_dashboard=False, log_to_driver=True, logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES, configure_logging=False,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
