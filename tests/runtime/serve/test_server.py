"""A real server: clients of the protocol can use it, SIGTERM loses no request, a broken model is a last word."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mizzen.serve.command import version_of
from mizzen_api.conditions import Reason
from mizzen_api.workload import Progress

SERVED = Path(__file__).parent / "served.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SERVED), "127.0.0.1", str(port), *arguments],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def until(url: str, wanted: int, process: subprocess.Popen[str], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while status(url) != wanted:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{url} never answered {wanted}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    process = start(port)
    until(f"http://127.0.0.1:{port}/v2/health/ready", 200, process)
    yield port
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_works_unchanged(port: int, binary: bool) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tweets", "4")
        assert client.get_model_metadata("tweets")["inputs"][0]["name"] == "text"
        text = triton.InferInput("text", [2], "BYTES")
        text.set_data_from_numpy(np.array(["abc", "ümlaut"], dtype=np.object_), binary_data=binary)
        outputs = None if binary else [triton.InferRequestedOutput("label", binary_data=False)]
        result = client.infer("tweets", [text], outputs=outputs, request_id="r1")
        assert [getattr(x, "decode", lambda x=x: x)() for x in result.as_numpy("label")] == ["negative", "negative"]
        if binary:
            assert result.as_numpy("probabilities") == pytest.approx(np.array([[0.8, 0.1, 0.1]] * 2))
        with pytest.raises(triton.InferenceServerException, match="'other' is not here"):
            client.infer("other", [text])


@pytest.mark.slow
def test_a_terminated_server_answers_until_proxies_know() -> None:
    port = free_port()
    process = start(port, MIZZEN_POD_NAME="pod")
    ready = f"http://127.0.0.1:{port}/v2/health/ready"
    until(ready, 200, process)
    process.send_signal(signal.SIGTERM)
    until(ready, 503, process)
    assert status(f"http://127.0.0.1:{port}/v2/health/live") == 200
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_reason(tmp_path: Path) -> None:
    words = tmp_path / "termination-log"
    words.touch()
    process = start(free_port(), "broken", MIZZEN_TERMINATION_LOG=str(words))
    process.communicate(timeout=20)
    assert process.returncode == 1
    progress = Progress.from_termination_message(words.read_text())
    assert progress is not None
    assert progress.reason is Reason.MODEL_UNLOADABLE
    assert "models:/tweets/4 cannot be loaded: model.safetensors is not there" in progress.message


@pytest.mark.parametrize(
    ("uri", "version"), [("models:/tweets/4", "4"), ("models:/tweets@champion", "champion"), ("/models/v4.0/", "v4.0")]
)
def test_the_version_is_the_end_of_the_uri(uri: str, version: str) -> None:
    assert version_of(uri) == version
