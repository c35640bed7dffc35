"""Runs a function of a test on several ranks, each in a process of its own, in a gloo group on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

TIMEOUT_SECONDS = 120


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What work(rank, *arguments) gave on each rank; JSON-like values, for they cross processes."""
    context = processes.get_context("spawn")
    answers = context.Queue()
    port = _free_port()
    started = [
        context.Process(target=_rank, args=(rank, world, port, answers, work, arguments)) for rank in range(world)
    ]
    for process in started:
        process.start()
    try:
        found = dict(answers.get(timeout=TIMEOUT_SECONDS) for _ in started)
    finally:
        for process in started:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
    for answer in found.values():
        if isinstance(answer, str) and answer.startswith("failed: "):
            raise AssertionError(answer)
    return [found[rank] for rank in range(world)]


def _rank(rank: int, world: int, port: int, answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        answers.put((rank, work(rank, *arguments)))
    except BaseException as error:
        import traceback

        answers.put((rank, f"failed: {type(error).__name__}: {traceback.format_exc()}"))
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
