"""The CRDs: generated from the models, structural, documented and complete."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mizzen_api import KINDS
from mizzen_api.contract import API_VERSION
from mizzen_api.crd import manifest

ROOT = Path(__file__).parents[2]


def test_committed_crds_are_what_the_models_say() -> None:
    expected: dict[Path, str] = runpy.run_path(str(ROOT / "crds" / "generate.py"))["files"]()
    for path, text in expected.items():
        assert path.read_text() == text, f"{path} is stale: run `make manifests`"


def schemas(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key], f"{path}[]")


def fields(kind: Any) -> list[tuple[str, dict[str, Any]]]:
    root = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return [found for part in ("spec", "status") for found in schemas(root[part], part)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.KIND)
def test_every_field_is_described(kind: Any) -> None:
    nameless = [path for path, schema in fields(kind) if not path.endswith("[]") and not schema.get("description")]
    assert nameless == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.KIND)
def test_schema_is_structural(kind: Any) -> None:
    for path, schema in fields(kind):
        assert "$ref" not in schema and "anyOf" not in schema, path
        assert "type" in schema or schema.get("x-kubernetes-preserve-unknown-fields"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.KIND)
def test_defaults_match_the_model(kind: Any) -> None:
    """A default that the API server writes is the one that Python code reads."""
    for path, schema in fields(kind):
        if isinstance(schema.get("default"), dict):
            assert None not in schema["default"].values(), path


def test_every_rule_says_what_to_mend() -> None:
    for kind in KINDS:
        rules = [rule for _, schema in fields(kind) for rule in schema.get("x-kubernetes-validations", [])]
        assert rules
        assert all(rule["message"] for rule in rules)


def test_examples_are_valid() -> None:
    by_kind = {kind.KIND: kind for kind in KINDS}
    documents = [
        document
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        # Secrets and the like belong to Kubernetes; a list holds parts of manifests.
        if isinstance(document, dict) and document["apiVersion"] == API_VERSION
    ]
    assert {document["kind"] for document in documents} == set(by_kind)
    for document in documents:
        parsed = by_kind[document["kind"]].model_validate(document)
        assert parsed.metadata.name == document["metadata"]["name"]
