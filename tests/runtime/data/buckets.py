"""A real S3 server on loopback, and what tests put there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS, SECRET = "mizzen", "a-secret-that-is-not-shown"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """The URL of a SeaweedFS with one user, and a bucket `raw`."""
    keys = [{"accessKey": ACCESS, "secretKey": SECRET}]
    users = [{"name": "mizzen", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": users}))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc"]  # fmt: skip
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
             "-s3", "-filer", f"-s3.config={folder / 's3.json'}", "-volume.max=8", "-master.volumeSizeLimitMB=16",
             "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports otherwise: two servers would trip over each other
             *(f"-{name}={port}" for name, port in ports.items())],
            stdout=out, stderr=out, cwd=folder, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        deadline = time.monotonic() + 60
        while not made_bucket(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield url
    finally:
        process.kill()  # it has nothing to keep, and its own end takes half a minute
        process.wait(timeout=30)


def client(url: str) -> object:
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key=ACCESS, secret_key=SECRET, endpoint_override=url.removeprefix("http://"), scheme="http",
        region="us-east-1", allow_bucket_creation=True,
    )  # fmt: skip


def made_bucket(url: str) -> bool:
    """True once the whole server works, volumes included."""
    try:
        client(url).create_dir("raw")  # type: ignore[attr-defined]
        put(url, "raw/ready", b"yes")
    except OSError:
        return False
    return True


def put(url: str, key: str, content: bytes) -> None:
    with client(url).open_output_stream(key) as out:  # type: ignore[attr-defined]
        out.write(content)
