"""The loop's Strategy: an update is a push to the servers. The loop itself trains as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mizzen.errors import SystemError_, UserError
from mizzen.train.strategies.single import Single
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan
    from mizzen.train.seams import Place
    from mizzen.train.strategies.parameter_server.client import Client
    from mizzen.train.strategies.parameter_server.messages import Work


class ParameterServer(Single):
    """Without a client, as in a search or a notebook, one process trains on its own.

    Gradients are clipped on each worker, by the norm of its own piece.
    """

    def __init__(self, plan: TrainPlan, place: Place, device: torch.device) -> None:  # noqa: ARG002
        check(plan)
        if place.world > 1:
            raise SystemError_("a parameter server's workers form no process group: see parameter_server/run.py")
        self.client: Client | None = None
        self.work: Work | None = None  # what the gradients that come next belong to
        self.pushed = False

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        if self.client is None:
            optimizer.step()
            return
        assert self.work is not None
        assert self.work.piece is not None
        self.pushed = self.client.push(self.work.piece, self.work.learning_rate, gather=self.work.gather)

    def counters(self) -> dict[str, float | str]:
        client = self.client
        if client is None:
            return {}
        sent: dict[str, float | str] = {
            "bytes_sent": client.bytes_sent,
            "bytes_uncompressed": client.bytes_uncompressed,
        }
        return {**sent, "compression": client.codec.name}


def check(plan: TrainPlan) -> None:
    """UserError for settings that do not go with a parameter server."""
    if plan.compression is not None and plan.compression.method == "powersgd":
        raise UserError(
            Reason.INVALID_PARAMETERS,
            "trainer.compression.method powersgd needs means over all workers, which strategy parameter-server does "
            "not make: set it to int8, int4 or topk, or the strategy to ddp",
        )
    if plan.progressive is not None and plan.progressive.depth is not None:
        raise UserError(
            Reason.INVALID_PARAMETERS,
            "trainer.progressive.depth adds blocks, which strategy parameter-server cannot: leave it out, or set the "
            "strategy to ddp or fsdp",
        )
