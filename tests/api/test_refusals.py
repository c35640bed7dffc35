"""What the API server refuses, with a word on the mend, before anything runs on it."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen_api import KINDS
from mizzen_api.crd import manifest
from mizzen_local.api import cel, schema, schemachecks, validation
from mizzen_local.api.status import Cause

TRAINING = {"datasetRef": {"name": "d"}, "model": {"name": "text-bag"}, "register": {"name": "m"}}
SEARCH = {"datasetRef": {"name": "d"}, "parameters": [{"name": "lr", "values": [0.1]}]}
SERVICE = {"predictor": {"model": {"uri": "models:/m/1"}}}
DATASET = {"sources": [{"uri": "x.csv"}], "target": "y"}
SPECS = {"TrainingJob": TRAINING, "SearchJob": SEARCH, "ModelService": SERVICE, "Dataset": DATASET}


def refusals(kind: str, spec: dict[str, Any], name: str = "ok") -> str:
    """Every complaint about an object of this kind, one a line; empty where it is taken."""
    crd = manifest(next(k for k in KINDS if kind == k.KIND))
    node = schema.Node(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], False)
    obj = {"apiVersion": "mizzen.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    schema.default(node, obj)
    causes: list[Cause] = []
    validation.validate(node, obj, "", causes)
    if not causes:
        cel.check(node, obj, None, "", causes)
    return "\n".join(f"{cause.field}: {cause.message}" for cause in causes)


def searched(*parameters: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**SEARCH, "parameters": list(parameters), **spec}


def registered(**register: Any) -> dict[str, Any]:
    return {**TRAINING, "register": {"name": "m", **register}}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["a", "tweets", "a-1", "a" * 40])
def test_names_that_services_can_bear_are_taken(kind: str, name: str) -> None:
    assert refusals(kind, SPECS[kind], name) == ""


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["t.9", "m.dot", "5m"])
def test_names_that_services_cannot_bear_are_refused(kind: str, name: str) -> None:
    assert "must begin with a lower-case letter" in refusals(kind, SPECS[kind], name)


def test_names_leave_room_for_those_of_children() -> None:
    assert "must not be longer than 40 characters" in refusals("TrainingJob", TRAINING, "a" * 41)


@pytest.mark.parametrize("quantity", ["0", "2", "500m", "1.5", ".5", "1e3", "2E-1", "4Gi", "100M"])
def test_quantities(quantity: str) -> None:
    for field in ("cpu", "memory"):
        assert refusals("SearchJob", {**SEARCH, "resourcesPerTrial": {field: quantity}}) == ""


@pytest.mark.parametrize("quantity", ["-1", "lots", "", "1 Gi", "4GiB", "1,5", "Gi", "0x10", "1.2.3"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    for field in ("cpu", "memory"):
        said = refusals("SearchJob", {**SEARCH, "resourcesPerTrial": {field: quantity}})
        assert f"spec.resourcesPerTrial.{field}" in said


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("TrainingJob", {**TRAINING, "trainer": {"seed": 2**31}}, "spec.trainer.seed"),
        ("TrainingJob", {**TRAINING, "trainer": {"learningRate": 1e30}}, "spec.trainer.learningRate"),
        ("TrainingJob", {**TRAINING, "checkpoint": {"everySteps": 2**31}}, "spec.checkpoint.everySteps"),
        ("TrainingJob", {**TRAINING, "runPolicy": {"activeDeadlineSeconds": 2**31}}, "activeDeadlineSeconds"),
        ("TrainingJob", {**TRAINING, "runPolicy": {"ttlSecondsAfterFinished": 2**31}}, "ttlSecondsAfterFinished"),
        ("SearchJob", {**SEARCH, "algorithm": {"seed": 2**31}}, "spec.algorithm.seed"),
        ("SearchJob", {**SEARCH, "maxFailedTrialCount": 100001}, "spec.maxFailedTrialCount"),
        ("SearchJob", {**SEARCH, "earlyStopping": {"gracePeriod": 10001}}, "spec.earlyStopping.gracePeriod"),
        ("SearchJob", {**SEARCH, "earlyStopping": {"reductionFactor": 1001}}, "spec.earlyStopping.reductionFactor"),
        ("SearchJob", searched({"name": "a", "min": 0, "max": 1e16}), "spec.parameters[0].max"),
        ("Dataset", {**DATASET, "maxBadRows": 2**31}, "spec.maxBadRows"),
        ("Dataset", {**DATASET, "backoffLimit": 101}, "spec.backoffLimit"),
        ("Dataset", {**DATASET, "ttlSecondsAfterFinished": 2**31}, "spec.ttlSecondsAfterFinished"),
    ],
)
def test_numbers_have_an_upper_end(kind: str, spec: dict[str, Any], path: str) -> None:
    assert path in refusals(kind, spec)


def test_every_whole_number_of_a_spec_has_an_upper_end() -> None:
    def whole(node: dict[str, Any], path: str) -> list[str]:
        found = [path] if node.get("type") == "integer" and not {"maximum", "enum"} & node.keys() else []
        for name, below in node.get("properties", {}).items():
            found += whole(below, f"{path}.{name}")
        return found + (whole(node["items"], f"{path}[]") if "items" in node else [])

    for kind in KINDS:
        if kind.KIND in SPECS:
            root = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            assert whole(root["properties"]["spec"], "spec") == [], kind.KIND


@pytest.mark.parametrize("name", ["tweets", "Tweets 2", "a.b", "stimmung-ü"])
def test_names_of_registered_models(name: str) -> None:
    assert refusals("TrainingJob", registered(name=name, alias="champion_2")) == ""


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "it's", ".", "..", " a"])
def test_names_that_the_registry_refuses(name: str) -> None:
    assert "name must not contain / : @ or '" in refusals("TrainingJob", registered(name=name))


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V22"])
def test_aliases_that_the_registry_keeps_for_itself(alias: str) -> None:
    assert "alias must not be latest or v with a number" in refusals("TrainingJob", registered(alias=alias))


@pytest.mark.parametrize("alias", ["", "a b", "a.b", "a/b"])
def test_aliases_are_made_of_letters_and_digits(alias: str) -> None:
    assert "alias must be made of letters, digits, - and _" in refusals("TrainingJob", registered(alias=alias))


@pytest.mark.parametrize("value", [{"a": 1}, None, [2], "x", True])
def test_values_of_a_parameter_are_numbers(value: Any) -> None:
    assert "spec.parameters[0].values[0]" in refusals("SearchJob", searched({"name": "lr", "values": [value]}))


@pytest.mark.parametrize(
    "space", [{}, {"min": 1}, {"max": 1}, {"values": [1], "min": 1}, {"values": [1], "min": 1, "max": 2}]
)
def test_a_parameter_has_values_or_a_range(space: dict[str, Any]) -> None:
    assert "set either values, or both min and max" in refusals("SearchJob", searched({"name": "lr", **space}))


def test_a_parameter_is_named_once() -> None:
    twice = searched({"name": "lr", "values": [1]}, {"name": "x", "values": [1]}, {"name": "lr", "min": 1, "max": 2})
    assert "two parameters have the same name" in refusals("SearchJob", twice)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"uri": "y.csv", "join": {"keys": ["id"]}}, ""),
        ({"uri": "y.csv", "join": {"keys": ["id"], "on": ["id"]}}, "keys and on are the same: set one of them"),
        ({"uri": "s3://b/y.csv", "secretRef": {"name": "bucket"}}, ""),
        (
            {"sql": {"query": "SELECT 1", "secretRef": {"name": "shop"}}, "secretRef": {"name": "shop"}},
            "secretRef belongs to a uri; a query has its own, sql.secretRef",
        ),
    ],
)
def test_what_a_source_may_say(second: dict[str, Any], complaint: str) -> None:
    said = refusals("Dataset", {**DATASET, "sources": [{"uri": "x.csv"}, second]})
    assert complaint in said
    assert bool(said) == bool(complaint), said


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.KIND)
def test_an_api_server_takes_the_definition(kind: Any) -> None:
    schema_ = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schemachecks.problems(schema_, "schema") == []


@pytest.mark.parametrize(
    "values",
    [
        {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": True}},
        {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}},
        {"x-kubernetes-preserve-unknown-fields": True},
    ],
)
def test_a_rule_about_what_has_no_type_does_not_compile(values: dict[str, Any]) -> None:
    definition = {
        "type": "object",
        "properties": {"values": values, "port": {"x-kubernetes-int-or-string": True}},
        "x-kubernetes-validations": [{"rule": "has(self.port)"}, {"rule": "has(self.values)"}],
    }
    (cause,) = schemachecks.problems(definition, "s", root=False)
    assert cause.field == "s.x-kubernetes-validations[1].rule"
    assert "compilation failed: undefined field 'values'" in cause.message


def trained(trainer: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {**TRAINING, "trainer": trainer or {}, **spec}


def ramp(name: str = "batchSize", start: int = 32, end: int = 256, **more: Any) -> dict[str, Any]:
    return {"progressive": {name: {"from": start, "to": end}, **more}}


TEACHER = {"distillation": {"teacherUri": "models:/big/7"}}
WORKER = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    "spec",
    [
        trained({"strategy": "fsdp", "fsdp": {"cpuOffload": True}, "compression": {"method": "none"}}),
        trained(
            {"strategy": "parameter-server", "parameterServer": {"mode": "async"}, "compression": {"method": "topk"}}
        ),
        trained({"precision": "fp8"}, accelerator="gpu"),
        trained({"precision": "fp8"}),
        trained(ramp(schedule="seesaw")),
        trained(ramp("depth", 2, 2) | {"distillation": {"teacherUri": "models:/big@best"}}),
        trained({"entrypoint": "pkg.mod:train", "epochs": 9}),
        trained(model={"uri": "models:/tweets/3"}),
        trained(model={"uri": "models:/tweets@champion"}),
        trained(model={"entrypoint": "net:Net.small", "config": {"width": 8}}),
        trained(image="registry:5000/mine@sha256:aa", code={"configMapRef": {"name": "net"}}),
        trained(accelerator="npu", scaling={"resourcesPerWorker": {**WORKER, "accelerators": 8}}),
    ],
)
def test_trainings_that_are_taken(spec: dict[str, Any]) -> None:
    assert refusals("TrainingJob", spec) == ""


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (trained({"strategy": "fsdp", "compression": {"method": "int8"}}), "under fsdp set compression.method to none"),
        (trained({"precision": "fp16", "compression": {"method": "int8"}}), "precision fp16 scales its gradients"),
        (trained({"fsdp": {}}), "set trainer.strategy to fsdp"),
        (trained({"parameterServer": {}}), "parameterServer goes with strategy parameter-server"),
        (
            trained({"strategy": "parameter-server", "compression": {"method": "powersgd"}}),
            "set compression.method to int8, int4 or topk",
        ),
        (
            trained(ramp("depth", 2, 4) | {"strategy": "parameter-server"}),
            "progressive.depth adds blocks, which a parameter server cannot",
        ),
        (trained({"strategy": "fsdp", "entrypoint": "a:b"}), "runs with strategy ddp"),
        (
            trained({"entrypoint": "a:b", **TEACHER}),
            "entrypoint takes the loop's place: leave progressive, distillation",
        ),
        (trained({"entrypoint": "a:b", "autotune": True}), "entrypoint takes the loop's place"),
        (trained(ramp(schedule="seesaw") | {"learningRateSchedule": "constant"}), "seesaw follows a falling rate"),
        (
            trained(ramp("depth", 2, 4) | {"distillation": {"teacherUri": "models:/b/1", "hiddenStates": 0.5}}),
            "hiddenStates compares blocks",
        ),
        (trained(ramp(start=512)), "from must not be above to"),
        (trained({"progressive": {}}), "name at least one of batchSize"),
        (trained(ramp("imageSize", schedule="seesaw")), "set progressive.batchSize"),
        (trained({"progressive": {"batchSize": {"from": 1}}}), "spec.trainer.progressive.batchSize.to"),
        (trained({"distillation": {}}), "spec.trainer.distillation.teacherUri"),
        (trained({"distillation": {"teacherUri": "s3://big"}}), "spec.trainer.distillation.teacherUri"),
        (trained({"distillation": {"teacherUri": "models:/big"}}), "spec.trainer.distillation.teacherUri"),
        (trained({"precision": "fp8"}, accelerator="cpu"), "fp8 needs an accelerator that has it"),
        (
            trained(accelerator="cpu", scaling={"resourcesPerWorker": {**WORKER, "accelerators": 1}}),
            "leave it out on cpu",
        ),
        (trained(scaling={"resourcesPerWorker": {**WORKER, "accelerators": 0}}), "resourcesPerWorker.accelerators"),
        (trained(model={}), "set exactly one of searchJobRef, name, uri and entrypoint"),
        (trained(model={"uri": "models:/m/1", "entrypoint": "a:b"}), "set exactly one of"),
        (trained(model={"uri": "models:/m/1", "config": {}}), "config goes with name or entrypoint"),
        (trained(model={"entrypoint": "no-colon"}), "spec.model.entrypoint"),
        (trained(model={"entrypoint": "a.b:c d"}), "spec.model.entrypoint"),
        (trained({"momentum": 1}), "spec.trainer.momentum"),
        (trained({"onNonFinite": "Ignore"}), "spec.trainer.onNonFinite"),
        (trained(image="two words"), "spec.image"),
        (trained(scaling={"minWorkers": 3, "maxWorkers": 2}), "minWorkers must not be above maxWorkers"),
    ],
)
def test_trainings_that_are_refused_with_the_mend(spec: dict[str, Any], words: str) -> None:
    assert words in refusals("TrainingJob", spec)


def test_whatever_a_training_may_say_has_a_size() -> None:
    """The cost of a rule is reckoned for the largest object that the schema takes."""

    def unbounded(node: dict[str, Any], path: str) -> list[str]:
        text = node.get("type") == "string" and "enum" not in node and "maxLength" not in node
        many = node.get("type") == "array" and "maxItems" not in node
        found = [path] if text or many else []
        for name, below in node.get("properties", {}).items():
            found += unbounded(below, f"{path}.{name}")
        return found + (unbounded(node["items"], f"{path}[]") if "items" in node else [])

    kind = next(kind for kind in KINDS if kind.KIND == "TrainingJob")
    root = manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert unbounded(root["properties"]["spec"], "spec") == []


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"min": 0.5}, ""),
        ({"notWorseThan": "champion"}, ""),
        ({"notWorseThan": "12", "tolerance": 0.01, "type": "minimize"}, ""),
        ({"metric": "accuracy"}, "set min, max or notWorseThan"),
        ({"min": 0.5, "tolerance": 0.1}, "tolerance goes with notWorseThan"),
        ({"notWorseThan": "models:/m/1"}, "notWorseThan"),
        ({"notWorseThan": "champion", "tolerance": -1}, "tolerance"),
    ],
)
def test_gates(gate: dict[str, Any], said: str) -> None:
    found = refusals("TrainingJob", registered(gates=[gate]))
    assert said in found
    assert bool(found) == bool(said)
