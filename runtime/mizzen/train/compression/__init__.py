"""Gradients on fewer bytes: codecs with error feedback, as a hook of DDP and for the parameter server, and a gate.

codecs.py      int8, int4, top-k: tensors to bytes and back        exchanges.py   two-shot and sparse means
powersgd.py    the low-rank mean                                    residuals.py   what is owed, by parameter
wire.py        collectives with their bytes counted                 compressor.py  the hook
gate.py        measures link and codecs, and decides
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

    from mizzen.train.compression.compressor import Compressor
    from mizzen.train.seams import Place
    from mizzen_api.trainingjob_trainer import Compression


def attach(model: DistributedDataParallel, settings: Compression, place: Place) -> Compressor:
    """Make a DDP model send its gradients as `settings` say. All ranks call this together, before the first forward.

    Under `when: auto` link and codecs are measured first, for about a second, and where nothing pays gradients go
    plainly, yet counted. What was found is the compressor's `note`.
    """
    import torch.distributed as dist

    from mizzen.train.compression.compressor import Compressor
    from mizzen.train.compression.exchanges import exchange_of
    from mizzen.train.compression.gate import measure
    from mizzen.train.compression.wire import Wire

    wire = Wire(dist.new_group())
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    method: str = settings.method
    note = f"compression {settings.method}"
    if settings.when == "auto" or method == "auto":
        decision = measure(settings, parameters, wire)
        method, note = decision.method, decision.text
    assert wire.rank == place.rank
    exchange = None if method == "none" else exchange_of(settings, method)
    compressor = Compressor(model.module, exchange, wire, note)
    model.register_comm_hook(None, lambda _, bucket: compressor.hook(bucket))
    return compressor
