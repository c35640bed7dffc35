"""The path of a write: defaults, validation, concurrency, generations, finalizers, namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from mizzen_local.api import removal
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.removal import DeleteOptions
from mizzen_local.client import ApiError, Object


def info(machinery: Machinery, group: str, plural: str, version: str = "v1") -> ResourceInfo:
    found = machinery.registry.get(group, version, plural)
    assert found is not None
    return found


def create(
    machinery: Machinery, group: str, plural: str, body: Object, namespace: str = "default", **options: Any
) -> Object:
    return machinery.create(info(machinery, group, plural), namespace, body, WriteOptions("test", **options)).obj


def pod(name: str = "p", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec}}


def deployment(name: str = "web", **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod()["spec"]}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def definition(schema: Object, plural: str = "things", kind: str = "Thing", **version: Any) -> Object:
    first = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    spec = {"group": "test.dev", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [first]}
    return {"metadata": {"name": f"{plural}.test.dev"}, "spec": spec}


def test_a_pod_gets_the_defaults_of_the_real_server(machinery: Machinery) -> None:
    body = pod()
    body["spec"]["containers"][0] |= {"ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}}
    made = create(machinery, "", "pods", body)
    spec, container = made["spec"], made["spec"]["containers"][0]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"], spec["dnsPolicy"]) == (
        "Always",
        30,
        "ClusterFirst",
    )
    assert container["imagePullPolicy"] == "Always"
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    }  # fmt: skip
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert container["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]


def test_a_service_gets_a_free_address_and_keeps_it(machinery: Machinery) -> None:
    first = create(machinery, "", "services", {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})
    second = create(machinery, "", "services", {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}]}})
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    assert create(machinery, "", "services", headless)["spec"]["clusterIP"] == "None"
    assert first["spec"]["clusterIP"] != second["spec"]["clusterIP"]
    assert first["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    services = info(machinery, "", "services")
    body = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}}
    updated = machinery.update(services, "default", "a", body, WriteOptions("test")).obj
    assert updated["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    body["spec"]["clusterIP"] = "127.20.9.9"
    with pytest.raises(ApiError, match="may not change once set"):
        machinery.update(services, "default", "a", body, WriteOptions("test"))


def test_a_job_selects_its_own_pods(machinery: Machinery) -> None:
    job = create(
        machinery,
        "batch",
        "jobs",
        {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod(restartPolicy="Never")["spec"]}}},
    )
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (1, 1, 6)


def test_a_secret_stores_text_as_data(machinery: Machinery) -> None:
    made = create(machinery, "", "secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)


@pytest.mark.parametrize(
    ("group", "plural", "body", "message"),
    [
        (
            "",
            "pods",
            {"metadata": {"name": "p"}, "spec": {"containers": []}},
            'Pod "p" is invalid: spec.containers: Required value',
        ),
        (
            "",
            "pods",
            {"metadata": {"name": "P_"}, "spec": pod()["spec"]},
            'metadata.name: Invalid value: "P_": a lowercase RFC 1123',
        ),
        ("", "pods", {"spec": pod()["spec"]}, "metadata.name: Required value: name or generateName is required"),
        (
            "",
            "configmaps",
            {"metadata": {"name": "c", "labels": {"a": "b c"}}},
            'metadata.labels: Invalid value: "b c"',
        ),
        ("", "services", {"metadata": {"name": "s"}, "spec": {}}, "spec.ports: Required value"),
        (
            "apps",
            "deployments",
            deployment(selector={"matchLabels": {"a": "b"}}),
            "`selector` does not match template `labels`",
        ),
        (
            "batch",
            "jobs",
            {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod()["spec"]}}},
            'valid values: "OnFailure", "Never"',
        ),
    ],
)
def test_wrong_manifests_say_what_is_wrong(
    machinery: Machinery, group: str, plural: str, body: Object, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        create(machinery, group, plural, body)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert message in caught.value.message


def test_a_wrong_type_is_a_bad_request(machinery: Machinery) -> None:
    with pytest.raises(ApiError) as caught:
        create(machinery, "apps", "deployments", deployment(replicas="three"))
    assert caught.value.code == 400
    assert caught.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct'
        " field DeploymentSpec.spec.replicas of type int32"
    )


def test_unknown_fields_are_errors_warnings_or_nothing(machinery: Machinery) -> None:
    body = deployment(replikas=3)
    with pytest.raises(ApiError, match=r'strict decoding error: unknown field "spec\.replikas"'):
        create(machinery, "apps", "deployments", body, validation="Strict")
    options = WriteOptions("test")
    made = machinery.create(info(machinery, "apps", "deployments"), "default", body, options).obj
    assert options.warnings == ['unknown field "spec.replikas"']
    assert "replikas" not in made["spec"]


def test_the_generation_counts_changes_of_the_spec_only(machinery: Machinery) -> None:
    deployments = info(machinery, "apps", "deployments")
    made = create(machinery, "apps", "deployments", deployment())

    def merge(patch: Object, sub: str = "") -> Object:
        return machinery.patch(deployments, "default", "web", "merge", patch, WriteOptions("test"), sub)[0].obj

    assert made["metadata"]["generation"] == 1
    assert merge({"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1
    assert merge({"spec": {"replicas": 3}})["metadata"]["generation"] == 2
    reported = merge({"status": {"replicas": 3}, "spec": {"replicas": 9}}, "status")
    assert (reported["metadata"]["generation"], reported["spec"]["replicas"], reported["status"]["replicas"]) == (
        2,
        3,
        3,
    )
    assert merge({"status": {"replicas": 7}})["status"]["replicas"] == 3, "the main resource does not write the status"


def test_writing_the_same_again_changes_nothing(machinery: Machinery) -> None:
    made = create(machinery, "apps", "deployments", deployment())
    again = machinery.update(info(machinery, "apps", "deployments"), "default", "web", made, WriteOptions("test")).obj
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_an_old_version_is_a_conflict(machinery: Machinery) -> None:
    maps = info(machinery, "", "configmaps")
    made = create(machinery, "", "configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    machinery.update(maps, "default", "c", {**made, "data": {"a": "2"}}, WriteOptions("test"))
    with pytest.raises(ApiError) as caught:
        machinery.update(maps, "default", "c", {**made, "data": {"a": "3"}}, WriteOptions("test"))
    assert caught.value.code == 409
    assert caught.value.message == (
        'Operation cannot be fulfilled on configmaps "c": the object has been modified; please apply your changes to'
        " the latest version and try again"
    )


def test_a_dry_run_stores_nothing(machinery: Machinery) -> None:
    before = machinery.store.rv
    made = create(machinery, "", "configmaps", {"metadata": {"name": "c"}}, dry_run=True)
    assert made["metadata"]["uid"]
    assert machinery.store.rv == before


def test_finalizers_hold_an_object_until_they_are_gone(machinery: Machinery) -> None:
    maps = info(machinery, "", "configmaps")
    create(machinery, "", "configmaps", {"metadata": {"name": "c", "finalizers": ["test.dev/hold"]}})
    removal.delete(machinery, maps, "default", "c", DeleteOptions("Foreground"))
    held = machinery.entry(maps, "default", "c").obj
    assert held["metadata"]["finalizers"] == ["test.dev/hold", "foregroundDeletion"]
    with pytest.raises(ApiError, match="no new finalizers can be added if the object is being deleted"):
        machinery.patch(maps, "default", "c", "merge", {"metadata": {"finalizers": ["x/y"]}}, WriteOptions("test"))
    machinery.patch(maps, "default", "c", "merge", {"metadata": {"finalizers": None}}, WriteOptions("test"))
    with pytest.raises(ApiError, match='configmaps "c" not found'):
        machinery.entry(maps, "default", "c")


def test_a_running_pod_gets_its_grace_and_a_waiting_one_goes_at_once(machinery: Machinery) -> None:
    pods = info(machinery, "", "pods")
    create(machinery, "", "pods", pod("waiting"))
    create(machinery, "", "pods", pod("running", nodeName="n"))
    removal.delete(machinery, pods, "default", "waiting", DeleteOptions())
    assert machinery.store.get("/pods", "default", "waiting") is None
    removal.delete(machinery, pods, "default", "running", DeleteOptions(grace=5))
    assert machinery.entry(pods, "default", "running").obj["metadata"]["deletionGracePeriodSeconds"] == 5
    machinery.patch(
        pods, "default", "running", "merge", {"status": {"phase": "Running"}}, WriteOptions("test"), "status"
    )
    assert machinery.store.get("/pods", "default", "running") is not None
    removal.delete(machinery, pods, "default", "running", DeleteOptions(grace=0))
    assert machinery.store.get("/pods", "default", "running") is None


def test_a_namespace_ends_when_it_is_finalized_and_takes_nothing_new(machinery: Machinery) -> None:
    spaces = info(machinery, "", "namespaces")
    create(machinery, "", "namespaces", {"metadata": {"name": "n"}}, "")
    assert machinery.store.get("/serviceaccounts", "n", "default") is not None
    removal.delete(machinery, spaces, "", "n", DeleteOptions())
    assert machinery.entry(spaces, "", "n").obj["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError, match="because it is being terminated"):
        create(machinery, "", "configmaps", {"metadata": {"name": "c"}}, "n")
    with pytest.raises(ApiError, match='namespaces "nowhere" not found'):
        create(machinery, "", "configmaps", {"metadata": {"name": "c"}}, "nowhere")
    removal.finalize_namespace(machinery, spaces, "n", {"spec": {"finalizers": []}})
    assert machinery.store.get("/namespaces", "", "n") is None


def test_a_definition_is_served_at_once_and_takes_its_objects_along(machinery: Machinery) -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}}},
    }
    made = create(machinery, "apiextensions.k8s.io", "customresourcedefinitions", definition(schema), "")
    assert {c["type"]: c["status"] for c in made["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    thing = create(machinery, "test.dev", "things", {"metadata": {"name": "t"}, "spec": {"colour": "red"}})
    assert thing["spec"] == {"size": 3}
    crds = info(machinery, "apiextensions.k8s.io", "customresourcedefinitions")
    removal.delete(machinery, crds, "", "things.test.dev", DeleteOptions())
    assert machinery.registry.get("test.dev", "v1", "things") is None
    assert machinery.store.get("test.dev/things", "default", "t") is None


def test_an_update_of_a_custom_resource_names_the_version_it_saw(machinery: Machinery) -> None:
    create(machinery, "apiextensions.k8s.io", "customresourcedefinitions", definition({"type": "object"}), "")
    create(machinery, "test.dev", "things", {"metadata": {"name": "t"}})
    with pytest.raises(ApiError, match=r"metadata\.resourceVersion: Invalid value: 0: must be specified for an update"):
        machinery.update(
            info(machinery, "test.dev", "things"), "default", "t", {"metadata": {"name": "t"}}, WriteOptions("x")
        )
