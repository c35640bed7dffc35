"""Codecs: a flat fp32 tensor becomes fewer bytes and comes back with a loss, which error feedback carries on.

Pure functions of tensors; who sends the bytes where stands in exchanges.py (DDP) and in the parameter server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mizzen_api.trainingjob_trainer import Compression

SCALE_BITS = 16  # of a group: a bf16 number, for fp16 knows none below 6e-8, where gradients often are
BLOCK = 262_144  # values that are encoded at once on a CPU
SAMPLE = 65_536  # values from which the threshold of top-k is estimated


class Codec(Protocol):
    """`decode(encode(x), len(x))` is close to x. What is not finite comes back as not finite, never as a number.

    Where `unit` is above 1, the payload of a tensor is that of its parts, cut at multiples of `unit`, in their order.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> int:
        """Values that belong together: cut tensors at its multiples."""

    def encode(self, values: Tensor) -> Tensor:
        """(n,) fp32 → (size(n),) uint8."""

    def decode(self, payload: Tensor, count: int) -> Tensor:
        """(size(n),) uint8 → (n,) fp32."""

    def size(self, count: int) -> int:
        """Bytes of the payload of so many values."""


def encode_with_feedback(codec: Codec, owed: Tensor) -> Tensor:
    """The payload of `owed`, which holds gradient and residual; afterwards it holds the residual of the next step.

    e' = (g + e) - decode(encode(g + e)), as in 1-bit SGD (Seide et al., Interspeech 2014); Karimireddy et al. (ICML
    2019, arXiv:1901.09847) show that with it, compressed SGD converges as uncompressed does. What is not finite
    leaves no residual: it would stay for ever.
    """
    payload = torch.empty(codec.size(owed.numel()), dtype=torch.uint8, device=owed.device)
    for part, bytes_ in _blocks(codec, owed, payload):
        bytes_.copy_(codec.encode(part))
        part.sub_(codec.decode(bytes_, part.numel())).nan_to_num_(0.0, 0.0, 0.0)
    return payload


def decode_into(codec: Codec, payload: Tensor, out: Tensor, weight: float | None = None) -> None:
    """Put the payload's values into `out`, or add them to it with a weight."""
    for part, bytes_ in _blocks(codec, out, payload):
        values = codec.decode(bytes_, part.numel())
        if weight is None:
            part.copy_(values)
        else:
            part.add_(values, alpha=weight)


def _blocks(codec: Codec, values: Tensor, payload: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Values and their bytes, on CPUs in parts: what is needed for a moment stays small."""
    count = values.numel()
    size = BLOCK // codec.unit * codec.unit
    start = at = 0
    while values.device.type == "cpu" and codec.unit > 1 and size and count - start >= 2 * size:
        end = at + codec.size(size)
        yield values[start : start + size], payload[at:end]
        start, at = start + size, end
    if count > start:
        yield values[start:], payload[at:]


@dataclass(frozen=True)
class Plain:
    """The numbers as they are: the yardstick."""

    name: str = "none"
    unit: int = 1

    def encode(self, values: Tensor) -> Tensor:
        return values.contiguous().view(torch.uint8)

    def decode(self, payload: Tensor, count: int) -> Tensor:  # noqa: ARG002
        return payload.clone().view(torch.float32)  # a slice may begin where no fp32 number may

    def size(self, count: int) -> int:
        return 4 * count


@dataclass(frozen=True)
class Int8:
    """Absolute-maximum quantisation in groups, exactly one byte a value: the scales take no room of their own.

    s = max|x| / 127 in bf16, q = round(x / s), as blockwise quantisation in Dettmers et al. (arXiv:2110.02861). The 16
    bits of s are the lowest bits of the group's first 16 values: each of these is the nearest whole number with the
    parity that tells its bit, off by up to s in place of s / 2, and the largest of all by up to 1.5 s. The last group
    takes what is left over; fewer than 16 values in all are sent as they are.
    """

    unit: int = 128
    name: str = "int8"

    def encode(self, values: Tensor) -> Tensor:
        if values.numel() < SCALE_BITS:
            return Plain().encode(values)
        return _joined([self._encode(part) for part in self._groups(values)])

    def decode(self, payload: Tensor, count: int) -> Tensor:
        if count < SCALE_BITS:
            return Plain().decode(payload, count)
        return _joined([self._decode(part) for part in self._groups(payload.view(torch.int8))])

    def size(self, count: int) -> int:
        return count if count >= SCALE_BITS else Plain().size(count)

    def _groups(self, flat: Tensor) -> Iterator[Tensor]:
        """Whole groups as rows, and the last with the remainder as one longer row."""
        unit, count = max(self.unit, SCALE_BITS), flat.numel()
        rest = count % unit
        whole = count if not rest else max(0, count - rest - unit)
        if whole:
            yield flat[:whole].view(-1, unit)
        if whole < count:
            yield flat[whole:].view(1, -1)

    @staticmethod
    def _encode(x_GU: Tensor) -> Tensor:
        scale_G, inverse_G1 = _scales(x_GU, 127)
        q_GU = (x_GU * inverse_G1).nan_to_num_(0.0, 0.0, 0.0)
        bits_GS = (scale_G.view(torch.int16).int()[:, None] >> _shifts(x_GU.device)) & 1
        first_GS = q_GU[:, :SCALE_BITS]
        first_GS.sub_(bits_GS).mul_(0.5).round_().mul_(2.0).add_(bits_GS)
        first_GS.copy_(torch.minimum(first_GS, 126 + bits_GS))  # 128 is no int8
        return q_GU.round_().to(torch.int8).view(torch.uint8).flatten()

    @staticmethod
    def _decode(q_GU: Tensor) -> Tensor:
        bits_GS = q_GU[:, :SCALE_BITS].int() & 1
        scale_G = (bits_GS << _shifts(q_GU.device)).sum(1).to(torch.int16).view(torch.bfloat16)
        return q_GU.float().mul_(scale_G.float()[:, None]).flatten()


@dataclass(frozen=True)
class Int4:
    """Fifteen steps in groups, two values to a byte, with a bf16 scale for each group.

    s = max|x| / 7, q = round(x / s) in -7..7, kept as q + 8: 4 + 16/group bits a value.
    """

    unit: int = 128
    name: str = "int4"

    def encode(self, values: Tensor) -> Tensor:
        if not values.numel():
            return values.new_empty(0, dtype=torch.uint8)
        x_GU = torch.nn.functional.pad(values, (0, -values.numel() % self.unit)).view(-1, self.unit)
        scale_G, inverse_G1 = _scales(x_GU, 7)
        q_GU = (x_GU * inverse_G1).round_().nan_to_num_(0.0, 0.0, 0.0).add_(8.0).to(torch.int8)
        pairs = q_GU.view(torch.int16)
        packed = (pairs | (pairs >> 4)).to(torch.uint8)
        return torch.cat([packed, scale_G.view(torch.uint8).view(-1, 2)], dim=1).flatten()

    def decode(self, payload: Tensor, count: int) -> Tensor:
        packed, scales = torch.split(payload.view(-1, self.unit // 2 + 2), [self.unit // 2, 2], dim=1)
        scale_G1 = scales.contiguous().view(torch.bfloat16).float()
        q_GHP = torch.stack([packed & 15, packed >> 4], dim=-1)
        return q_GHP.float().sub_(8.0).view(-1, self.unit).mul_(scale_G1).flatten()[:count]

    def size(self, count: int) -> int:
        groups = -(-count // self.unit)
        return groups * (self.unit // 2 + 2)


@dataclass(frozen=True)
class TopK:
    """The values that are largest by magnitude: bf16 with int32 indices, 6 bytes each.

    Deep Gradient Compression (Lin et al., ICLR 2018, arXiv:1712.01887), without its momentum correction: the threshold
    comes from a sample, the exact order is asked for only among those above it. What is not finite counts as largest.
    """

    density: float = 0.01
    unit: int = 1
    name: str = "topk"

    def kept(self, count: int) -> int:
        return min(count, max(1, math.ceil(self.density * count)))

    def encode(self, values: Tensor) -> Tensor:
        keep = self.kept(values.numel())
        indices = self._largest(values.abs(), keep)
        picked = values[indices].bfloat16()
        return torch.cat([indices.int().view(torch.uint8), picked.view(torch.uint8)])

    def decode(self, payload: Tensor, count: int) -> Tensor:
        indices, picked = self.entries(payload, count)
        return torch.zeros(count, device=payload.device).index_copy_(0, indices, picked)

    def entries(self, payload: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Indices, each once, and their values."""
        keep = self.kept(count)
        indices, picked = torch.split(payload.clone(), [4 * keep, 2 * keep])
        return indices.view(torch.int32).long(), picked.view(torch.bfloat16).float()

    def size(self, count: int) -> int:
        return 6 * self.kept(count)

    def _largest(self, magnitudes: Tensor, keep: int) -> Tensor:
        """The largest, where the sample tells the threshold well; all are looked at where it does not."""
        count = magnitudes.numel()
        stride = count // SAMPLE
        if stride > 1:
            sample = magnitudes[::stride]
            wanted = min(len(sample), math.ceil(len(sample) * keep / count * 1.25) + 32)
            threshold = sample.topk(wanted, sorted=False).values.min()
            above = (magnitudes < threshold).logical_not_().nonzero().view(-1)
            if keep <= len(above) < count:
                return above[magnitudes[above].topk(keep, sorted=False).indices]
        return magnitudes.topk(keep, sorted=False).indices


def codec_of(settings: Compression, method: str) -> Codec:
    """One of the methods that work value by value; PowerSGD works on matrices, see powersgd.py."""
    codecs: dict[str, Codec] = {
        "none": Plain(),
        "int8": Int8(settings.group_size),
        "int4": Int4(settings.group_size + settings.group_size % 2),
        "topk": TopK(settings.density),
    }
    return codecs[method]


def _scales(x_GU: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The groups' scales in bf16, and 1 / scale as a column: 0 for groups of zeros, NaN where one is not finite."""
    scale_G = (torch.maximum(-x_GU.amin(dim=1), x_GU.amax(dim=1)) / steps).bfloat16()  # aminmax is ten times slower
    scale_G = torch.where(scale_G.isfinite(), scale_G, torch.nan)
    inverse_G = torch.where(scale_G == 0, 0.0, 1.0 / scale_G.float())
    return scale_G, inverse_G[:, None]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(SCALE_BITS, device=device, dtype=torch.int32)
