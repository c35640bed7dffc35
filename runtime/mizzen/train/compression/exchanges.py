"""How the ranks of a group come to the mean of what they owe, in compressed form: one class for each way of sending."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mizzen.train.compression.codecs import Codec, Int8, TopK, codec_of, decode_into, encode_with_feedback
from mizzen.train.compression.powersgd import PowerSgd

if TYPE_CHECKING:
    from mizzen.train.compression.residuals import Layout, Residuals
    from mizzen.train.compression.wire import Wire
    from mizzen_api.trainingjob_trainer import Compression

METHODS = ("int8", "int4", "powersgd", "topk")  # the gentlest first
SMALL = 65_536  # vectors below it are norms and biases: few bytes, and each value weighs much


class Exchange(Protocol):
    """All ranks call `mean` for the same buckets in the same order and get the same bits."""

    @property
    def name(self) -> str: ...

    def packs(self, shape: tuple[int, ...]) -> bool:
        """Whether a parameter of this shape is compressed."""

    def reserve(self, layout: Layout, residuals: Residuals, device: torch.device) -> None:
        """Make all that is kept from step to step."""

    def mean(self, owed: Tensor, layout: Layout, residuals: Residuals, wire: Wire) -> Tensor:
        """The mean over ranks of `owed` (gradient and residual, flat fp32), which becomes the new residual."""

    def bytes_for(self, layout: Layout, world: int) -> int:
        """What `mean` makes a rank send."""


@dataclass(frozen=True)
class TwoShot:
    """Each rank owns a chunk: chunks go to their owners, who add up in fp32, and come back; both ways compressed.

    As the compressed all-reduce of 1-bit Adam (Tang et al., ICML 2021, arXiv:2102.02888): both quantisations have error
    feedback, of the worker and of the owner. Bytes are those of a ring all-reduce times the codec's ratio.
    """

    codec: Codec

    @property
    def name(self) -> str:
        return self.codec.name

    def packs(self, shape: tuple[int, ...]) -> bool:
        """int8 takes all: beside one byte a value, four bytes for a few would show."""
        return self.name == Int8.name or _is_large(shape)

    def reserve(self, layout: Layout, residuals: Residuals, device: torch.device) -> None:
        residuals.of(layout, device)

    def mean(self, owed: Tensor, layout: Layout, residuals: Residuals, wire: Wire) -> Tensor:
        codec, counts = self.codec, self._chunks(owed.numel(), wire.world)
        mine = counts[wire.rank]
        share = residuals.share(layout, sum(counts[: wire.rank]), mine, owed.device)
        received = wire.all_to_all(
            [encode_with_feedback(codec, part) for part in torch.split(owed, counts)], codec.size(mine)
        )
        for payload in received:
            decode_into(codec, payload, share, weight=1.0 / wire.world)
        payloads = wire.all_gather(encode_with_feedback(codec, share), [codec.size(count) for count in counts])
        mean = torch.empty_like(owed)
        for out, payload in zip(torch.split(mean, counts), payloads, strict=True):
            decode_into(codec, payload, out)
        return mean

    def bytes_for(self, layout: Layout, world: int) -> int:
        return 2 * (world - 1) * self.codec.size(layout.count) // world

    def _chunks(self, count: int, world: int) -> list[int]:
        """Values of each rank's chunk: as even as whole groups allow."""
        whole = math.ceil(count / (world * self.codec.unit)) * self.codec.unit
        return [max(0, min(whole, count - rank * whole)) for rank in range(world)]


@dataclass(frozen=True)
class Sparse:
    """Every rank sends its largest values to all others, who add them up in the order of ranks."""

    codec: TopK

    @property
    def name(self) -> str:
        return self.codec.name

    def packs(self, shape: tuple[int, ...]) -> bool:
        return _is_large(shape)

    def reserve(self, layout: Layout, residuals: Residuals, device: torch.device) -> None:
        residuals.of(layout, device)

    def mean(self, owed: Tensor, layout: Layout, residuals: Residuals, wire: Wire) -> Tensor:  # noqa: ARG002
        count = owed.numel()
        payload = encode_with_feedback(self.codec, owed)
        total = torch.zeros(count, device=owed.device)
        for received in wire.all_gather(payload, [payload.numel()] * wire.world):
            total.index_add_(0, *self.codec.entries(received, count))
        return total.div_(wire.world)

    def bytes_for(self, layout: Layout, world: int) -> int:
        return (world - 1) * self.codec.size(layout.count)


def exchange_of(settings: Compression, method: str) -> Exchange:
    """The exchange of one of METHODS, with the settings' sizes."""
    if method == "powersgd":
        return PowerSgd(settings.rank)
    codec = codec_of(settings, method)
    return Sparse(codec) if isinstance(codec, TopK) else TwoShot(codec)


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 or math.prod(shape) >= SMALL
