"""Options with a wrong value: one message that names the option, no traceback, and nothing has started."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mizzen_local.cli import app

BROKEN = {"images.yaml": "a: [1, 2", "table.yaml": "busybox: sh", "kubeconfig": "a: 1"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIZZEN_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "option", "words"),
    [
        ("up --values /nope.yaml", "--values", "does not exist"),
        ("up --memory lots", "--memory", "'lots' is no quantity"),
        ("up --memory 0", "--memory", "is not above zero"),
        ("up --memory=-1Gi", "--memory", "is not above zero"),
        ("up --cpus 0", "--cpus", "0.01"),
        ("up --cpus many", "--cpus", "number"),
        ("up --extended foo", "--extended", "is not DOMAIN/NAME=WHOLE-NUMBER"),
        ("up --extended gpu=1", "--extended", "is not DOMAIN/NAME=WHOLE-NUMBER"),
        ("up --extended a.b/gpu=1.5", "--extended", "is not DOMAIN/NAME=WHOLE-NUMBER"),
        ("up --images /nope", "--images", "does not exist"),
        ("up --images images.yaml", "--images", "is no table of image names"),
        ("up --images table.yaml", "--images", "is no table of image names"),
        ("up --port 99999", "--port", "65535"),
        ("up --node Local_1", "--node", "must be lower-case letters"),
        ("up --pod-range 10.0.0.0/8", "--pod-range", "is not within 127.0.0.0/8"),
        ("up --service-range x", "--service-range", "is no range of addresses"),
        ("up --state-dir images.yaml", "--state-dir", "is a file"),
        ("up --timeout 0", "--timeout", "1"),
        ("node --kubeconfig /nope", "--kubeconfig", "does not exist"),
        ("node --kubeconfig kubeconfig", "--kubeconfig", "is no kubeconfig"),
    ],
)
def test_a_wrong_value_is_told_with_its_option(folder: Path, arguments: str, option: str, words: str) -> None:
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 2, done.output
    assert f"Invalid value for '{option}'" in done.output
    assert words in done.output
    assert not (folder / "state").exists()


def test_a_purge_that_is_refused_is_one_line(folder: Path) -> None:
    (folder / "precious").mkdir()
    done = CliRunner().invoke(app, ["down", "--purge", "--state-dir", "precious"])
    assert done.exit_code == 1
    assert done.output.startswith(f"error: {folder}/precious is not deleted: no embedded cluster made it")
    assert done.output.count("\n") == 1
    assert (folder / "precious").is_dir()
