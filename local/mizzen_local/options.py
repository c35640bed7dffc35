"""What `mizzen up` and `mizzen node` take in their options: a wrong value is told with its option, before a start."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import typer

from mizzen_local import ranges
from mizzen_local.agent.images import Images
from mizzen_local.http_client import Kubeconfig
from mizzen_local.quantities import Quantity
from mizzen_local.state import StateError

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_RESOURCE = re.compile(rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def node_name(value: str) -> str:
    if value and (len(value) > 253 or _NAME.fullmatch(value) is None):
        raise typer.BadParameter(f"{value!r} must be lower-case letters, digits, - and ., as in laptop-1")
    return value


def memory(value: str | None) -> str | None:
    if value is not None and _amount(value) <= Quantity():
        raise typer.BadParameter(f"{value!r} is not above zero")
    return value


def extended(values: list[str] | None) -> list[str] | None:
    """Whole amounts of resources with a domain, as the API server wants them."""
    for value in values or []:
        name, equals, amount = value.partition("=")
        if not equals or _RESOURCE.fullmatch(name) is None or not amount.isascii() or not amount.isdigit():
            raise typer.BadParameter(f"{value!r} is not DOMAIN/NAME=WHOLE-NUMBER, as in nvidia.com/gpu=1")
    return values


def images(path: Path | None) -> Path | None:
    """The file as it will be read."""
    if path is not None:
        try:
            Images.default(path)
        except Exception as error:  # whatever YAML may hold
            what = " ".join(str(error).split()) or type(error).__name__
            raise typer.BadParameter(f"{path} is no table of image names to path, entrypoint and env: {what}") from None
    return path


def kubeconfig(path: Path) -> Path:
    try:
        Kubeconfig.load(path)
    except Exception as error:
        what = " ".join(str(error).split()) or "it has no current context"
        raise typer.BadParameter(f"{path} is no kubeconfig: {what}") from None
    return path


def addresses(value: str) -> str:
    """Any range; empty stands for the default."""
    if value:
        try:
            ipaddress.IPv4Network(value)
        except ValueError as error:
            raise typer.BadParameter(f"{value!r} is no range of addresses: {error}") from None
    return value


def loopback(value: str) -> str:
    """A range that processes of this machine can listen in; empty stands for the default."""
    if value:
        try:
            ranges.network(value)
        except StateError as error:
            raise typer.BadParameter(str(error)) from None
    return value


def _amount(text: str) -> Quantity:
    try:
        return Quantity.parse(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no quantity, as 8Gi is one") from None
