"""How the ranks of a group share one training: by a name of the plan, one implementation of base.Strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mizzen.train.plan import TrainPlan
    from mizzen.train.seams import Place
    from mizzen.train.strategies.base import Strategy


def create(plan: TrainPlan, place: Place, device: torch.device) -> Strategy:
    """The plan's strategy in the process group that stands now. Those that nobody asked for are not imported."""
    from torch.distributed import is_initialized

    if plan.strategy == "fsdp" and (place.world > 1 or is_initialized()):  # nothing to shard among one
        from mizzen.train.strategies.fsdp import Fsdp

        return Fsdp(plan, place, device)
    if plan.strategy == "parameter-server":
        from mizzen.train.strategies.parameter_server.strategy import ParameterServer

        return ParameterServer(plan, place, device)
    if place.world == 1:
        from mizzen.train.strategies.single import Single

        return Single()
    from mizzen.train.strategies.ddp import Ddp

    return Ddp(plan, place, device)
