"""How a module is run without changing what it computes: memory format, activation checkpointing, torch.compile."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Say = Callable[[str], None]

_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


def checkpoint_activations(module: nn.Module, say: Say) -> None:
    """Compute what is inside each block again in backward: "Training Deep Nets with Sublinear Memory Cost" (2016)."""
    blocks = _blocks(module)
    if not blocks:
        say(f"activationCheckpointing: {type(module).__name__} has no list of blocks; it runs without")
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of `blocks`; of another model, those of its longest list that holds parameters."""
    named = getattr(module, "blocks", None)
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    longest = max(lists, key=len, default=None)
    found = named if isinstance(named, nn.ModuleList | nn.Sequential) else longest
    return [block for block in found or () if any(True for _ in block.parameters())]


def compile_in_place(module: nn.Module, *, sharded: bool) -> None:
    """Compiled at its first call. Shards are gathered block by block, so there each block is a graph of its own."""
    parts = _blocks(module) if sharded else []
    for part in parts or [module]:
        part.compile()


def uncompile(module: nn.Module) -> None:
    for part in module.modules():
        part._compiled_call_impl = None


def is_compiled(module: nn.Module) -> bool:
    return any(part._compiled_call_impl is not None for part in module.modules())


def is_of_compiler(error: BaseException) -> bool:
    """Whether torch.compile failed, and not the module or the group."""
    return type(error).__module__.startswith(_COMPILERS)


def is_out_of_memory(error: BaseException) -> bool:
    """On a device, or on the host where the allocator refused."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "DefaultCPUAllocator" in text)
