"""`kubectl exec` and `kubectl attach`: a command inside a running container, or its own output, joined to streams."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from mizzen_local.agent.containers import Container
from mizzen_local.agent.logs import batches, log_lines
from mizzen_local.agent.streams import STDERR, STDOUT, Streams, Wanted
from mizzen_local.client import Object

_CHUNK = 2**15
_RETRY = 0.02  # seconds, while a terminal takes no more
SUCCESS: Object = {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> Object:
    """What the error stream says at the end."""
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def execute(container: Container, argv: list[str], streams: Streams, wanted: Wanted) -> Object:
    """Run a command until it ends or the client goes; answers its status."""
    if wanted.tty:
        return await _on_terminal(container, argv, streams)
    stdin = asyncio.subprocess.PIPE if wanted.stdin else asyncio.subprocess.DEVNULL
    process = await container.begin(argv, stdin=stdin)
    assert process.stdout and process.stderr

    async def outward(channel: int, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            await streams.send(channel, data)

    async def inward() -> None:
        if process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                while (data := await streams.stdin.get()) is not None:
                    process.stdin.write(data)
                    await process.stdin.drain()
            process.stdin.close()

    async with _helpers(inward(), _kill_when_gone(process, streams)):
        await asyncio.gather(outward(STDOUT, process.stdout), outward(STDERR, process.stderr))
        return exit_status(await process.wait())


async def _on_terminal(container: Container, argv: list[str], streams: Streams) -> Object:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    try:
        process = await container.begin(argv, stdin=slave, stdout=slave, stderr=slave)
    finally:
        os.close(slave)

    async def inward() -> None:
        while (data := await streams.stdin.get()) is not None:
            while data:
                try:
                    data = data[os.write(master, data) :]
                except BlockingIOError:
                    await asyncio.sleep(_RETRY)

    async def resize() -> None:
        while True:
            rows, columns = await streams.sizes.get()
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    try:
        async with _helpers(inward(), resize(), _kill_when_gone(process, streams)):
            async for data in _terminal_output(master):
                await streams.send(STDOUT, data)
            return exit_status(await process.wait())
    finally:
        os.close(master)


async def _terminal_output(master: int) -> AsyncIterator[bytes]:
    """Until the last process has closed the terminal, which Linux tells as an I/O error."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(master, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                data = os.read(master, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(master)


async def _kill_when_gone(process: asyncio.subprocess.Process, streams: Streams) -> None:
    await streams.closed.wait()
    if process.returncode is None:
        process.kill()


@contextlib.asynccontextmanager
async def _helpers(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work beside the main thing, which ends with it."""
    tasks = [asyncio.create_task(item) for item in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def attach(container: Container, streams: Streams, wanted: Wanted, *, once: bool) -> Object:
    """What the container prints from now on, line by line, and its stdin where it has one."""
    attempt = container.attempt

    def still() -> bool:
        return container.running and container.attempt == attempt and not streams.closed.is_set()

    async def inward() -> None:
        while (data := await streams.stdin.get()) is not None:
            await container.feed(data)
        if once:
            container.close_stdin()

    async with _helpers(*([inward()] if wanted.stdin else [])):
        growing = batches(container.attempt_folder() / "log", still, from_end=True)
        async with contextlib.aclosing(growing):
            async for lines in growing:
                text = b"".join(log_lines(lines, tail=None, since=None, timestamps=False))
                await streams.send(STDOUT, text)
    return SUCCESS
