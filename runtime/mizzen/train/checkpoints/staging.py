"""On a GPU: a copy within its own memory, in a millisecond, and from there to the host while training goes on."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mizzen.train.checkpoints.pieces import Piece

log = logging.getLogger(__name__)

SPARE = 0.1  # of a device's memory that stays free for the training
MOST_ON_HOST = 1024 * 1024  # bytes of tensors that are on the host already; with more of them there is no gain


class Staging:
    """One buffer on the device, laid out as a slot is."""

    def __init__(self, device: torch.device, pieces: Sequence[Piece], data_bytes: int) -> None:
        from mizzen.train.checkpoints.copying import views

        self._buffer = torch.empty(data_bytes, dtype=torch.uint8, device=device)
        self._targets = views(self._buffer, pieces)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._device = device

    @classmethod
    def of(cls, sources: Sequence[Tensor], pieces: Sequence[Piece], data_bytes: int) -> Staging | None:
        """None where nothing is on a GPU, or where it has no room to spare."""
        devices = {source.device for source in sources if source.is_cuda}
        on_host = sum(source.nbytes for source in sources if not source.is_cuda)
        if len(devices) != 1 or on_host > MOST_ON_HOST:
            return None
        (device,) = devices
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if free - data_bytes < SPARE * total:
            log.info("no room on %s for a copy of %.0f MB: snapshots wait for the host", device, data_bytes / 1e6)
            return None
        return cls(device, pieces, data_bytes)

    def copy(self, sources: Sequence[Tensor], targets: Sequence[Tensor], data: Tensor) -> Callable[[], None]:
        """Call what it returns before the next copy: it waits until all bytes are in `data`, whose views `targets` are.

        What it returns may run in another thread.
        """
        few = [(target, source.clone()) for target, source in zip(targets, sources, strict=True) if not source.is_cuda]
        for group in _alike(sources):
            with torch.no_grad():
                torch._foreach_copy_([self._targets[at] for at in group], [sources[at] for at in group])
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            data.copy_(self._buffer, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)

        def arrive() -> None:
            done.synchronize()
            for target, source in few:
                target.copy_(source)

        return arrive


def _alike(sources: Sequence[Tensor]) -> list[list[int]]:
    """Those on the device by dtype: torch copies many of one dtype in one kernel."""
    groups: dict[torch.dtype, list[int]] = {}
    for at, source in enumerate(sources):
        if source.is_cuda:
            groups.setdefault(source.dtype, []).append(at)
    return list(groups.values())


def pin(memory: mmap.mmap) -> bool:
    """Let the device write into this memory by itself: whether it may. Without, it holds up the training for longer."""
    error = int(torch.cuda.cudart().cudaHostRegister(_address(memory), len(memory), 0))  # type: ignore[no-untyped-call]
    if error:
        log.warning("shared memory could not be pinned (CUDA error %d): snapshots take longer", error)
        with contextlib.suppress(RuntimeError):  # CUDA keeps its last error, which the next kernel would raise
            torch.zeros(1, device="cuda").add_(1)
    return not error


def unpin(memory: mmap.mmap) -> None:
    torch.cuda.cudart().cudaHostUnregister(_address(memory))  # type: ignore[no-untyped-call]


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
