"""The cluster under test: the one that MIZZEN_TEST_KUBECONFIG names, else an embedded one that the suite starts."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import Object, definition

ENVIRONMENT = "MIZZEN_TEST_KUBECONFIG"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a cluster; what only the embedded one lacks is expected to fail there alone."""
    embedded = not os.environ.get(ENVIRONMENT)
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.cluster)
        for lack in item.iter_markers("embedded_lacks"):
            if embedded:
                item.add_marker(pytest.mark.xfail(strict=True, reason=lack.args[0]))


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Cluster:
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Cluster(Path(given).resolve())
    return Cluster(request.getfixturevalue("embedded_cluster").kubeconfig)


@pytest.fixture(scope="session")
def make_namespace(base: Cluster) -> Iterator[Callable[[str], str]]:
    """Namespaces with random names; they go when the session ends."""
    made: list[str] = []

    def make(purpose: str) -> str:
        name = f"test-{purpose}-{secrets.token_hex(4)}"
        base.kubectl("create", "namespace", name)
        made.append(name)

        async def settle() -> None:
            # pods are refused before the default ServiceAccount is there
            await eventually(
                "the default account", lambda: base.run("-n", name, "get", "sa", "default").returncode == 0
            )

        asyncio.run(settle())
        return name

    yield make
    if made:
        base.kubectl("delete", "namespace", *made, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def cluster(base: Cluster, make_namespace: Callable[[str], str], request: pytest.FixtureRequest) -> Cluster:
    """The cluster with a namespace for this file's tests; their objects differ by name."""
    purpose = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    return replace(base, namespace=make_namespace(purpose))


@pytest.fixture
def own(base: Cluster, make_namespace: Callable[[str], str]) -> Cluster:
    """The cluster with a namespace for one test alone."""
    return replace(base, namespace=make_namespace("own"))


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[Http]:
    async with await Http.connect(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def define(base: Cluster) -> Iterator[Callable[..., str]]:
    """Create a CustomResourceDefinition in a group of its own and wait for it; returns the path part group/version."""
    made: list[str] = []

    def make(schema: Object, names: Object | None = None, **version: Any) -> str:
        group = f"t{secrets.token_hex(4)}.mizzen.test"
        crd = definition(group, schema, **version)
        crd["spec"]["names"].update(names or {})
        base.apply(crd)
        name = crd["metadata"]["name"]
        made.append(name)
        base.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
        return f"{group}/v1"

    yield make
    if made:
        base.kubectl("delete", "crd", *made, "--wait=false", "--ignore-not-found")
