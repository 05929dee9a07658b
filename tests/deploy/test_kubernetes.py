"""The Kubernetes example: against the API's own schemas, and against the service's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sqlalchemy import create_engine, text

from app.config import Settings
from app.storage.records import SqlRecords
from tests.deploy.dockerfile import API, ROOT, WORKER, read_stages
from tests.samples import a_kept_job

FOLDER = ROOT / "docker" / "kubernetes"
VERSIONS = ("1.29", "1.37")  # the oldest and the newest that it is written for
Document = dict[str, Any]


def documents(folder: Path) -> Iterator[tuple[str, Document]]:
    for path in sorted(folder.glob("*.yaml")):
        for found in yaml.safe_load_all(path.read_text()):
            name = found.get("metadata", {}).get("name", "")
            yield f"{folder.name}/{path.name}: {found['kind']} {name}".rstrip(), found


BASE = dict(documents(FOLDER / "base"))
WHOLE = [name for name, found in BASE.items() if found["kind"] != "Kustomization"]
KEDA = dict(documents(FOLDER / "keda"))


def of_kind(kind: str) -> dict[str, Document]:
    found = (each for each in BASE.values() if each["kind"] == kind)
    return {each["metadata"]["name"]: each for each in found}


DEPLOYMENTS, JOBS = of_kind("Deployment"), of_kind("Job")
PODS = {name: each["spec"]["template"] for name, each in {**DEPLOYMENTS, **JOBS}.items()}


def containers() -> Iterator[Document]:
    for pod in PODS.values():
        yield from pod["spec"]["containers"]
        yield from pod["spec"].get("initContainers", [])


@pytest.mark.parametrize("name", WHOLE)
def test_each_manifest_is_what_kubernetes_takes(name: str) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(BASE[name], version, strict=True)


def test_a_field_that_is_none_is_found() -> None:
    """Else the test above could not fail."""
    wrong = {**of_kind("Service")["api"], "spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", ["base", "gpu", "keda"])
def test_each_kustomization_names_what_is_there_and_leaves_out_the_example_secret(
    folder: str,
) -> None:
    here = FOLDER / folder
    listed = yaml.safe_load((here / "kustomization.yaml").read_text())
    patches = {each["path"] for each in listed.get("patches", []) if "path" in each}
    named = {name for name in {*listed["resources"], *patches} if name.endswith(".yaml")}
    files = {path.name for path in here.glob("*.yaml")}
    assert named == files - {"kustomization.yaml", "secret.example.yaml"}
    assert [name for name in listed["resources"] if not name.endswith(".yaml")] in ([], ["../base"])


def test_every_pod_has_no_rights_and_a_read_only_root() -> None:
    for pod in PODS.values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in containers():
        rights = each["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert {"/data", "/tmp"} <= {mount["mountPath"] for mount in each["volumeMounts"]}
        assert "memory" in each["resources"]["limits"]


def test_the_pods_user_is_the_images() -> None:
    for path in (API, WORKER):
        user, group = read_stages(path)[-1].last("USER").text.split(":")
        for pod in PODS.values():
            given = pod["spec"]["securityContext"]
            assert (given["runAsUser"], given["runAsGroup"]) == (int(user), int(group))
            assert given["fsGroup"] == int(group)


def test_every_mount_has_its_volume_and_every_claim_is_there() -> None:
    claims = of_kind("PersistentVolumeClaim")
    for pod in PODS.values():
        spec = pod["spec"]
        volumes = {each["name"]: each for each in spec["volumes"]}
        for each in [*spec["containers"], *spec.get("initContainers", [])]:
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes.keys()
        used = [
            v["persistentVolumeClaim"] for v in volumes.values() if "persistentVolumeClaim" in v
        ]
        assert {claim["claimName"] for claim in used} <= claims.keys()


def test_the_images_are_those_that_are_built_here() -> None:
    listed = BASE["base/kustomization.yaml: Kustomization"]["images"]
    assert {each["image"] for each in containers()} == {each["name"] for each in listed}
    compose = (ROOT / "docker-compose.yml").read_text()
    assert all(f"image: {each['name']}:" in compose for each in listed)


def test_every_setting_that_is_given_is_one() -> None:
    known = {f"ADAPTER_SAFETY_{name.upper()}" for name in Settings.model_fields}
    named = set(of_kind("ConfigMap")["adapter-safety"]["data"])
    named |= set(of_kind("Secret")["adapter-safety"]["stringData"])
    named |= {each["name"] for c in containers() for each in c.get("env", [])}
    assert {name for name in named if name.startswith("ADAPTER_SAFETY_")} <= known
    other = {name for name in named if not name.startswith("ADAPTER_SAFETY_")}
    assert other == {
        "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KEDA_DATABASE_URL",
    }  # fmt: skip
    assert "PASSWORD" not in str(of_kind("ConfigMap"))


def test_what_the_api_is_asked_is_what_it_answers() -> None:
    (api,) = DEPLOYMENTS["api"]["spec"]["template"]["spec"]["containers"]
    (port,) = api["ports"]
    assert port["containerPort"] == int(read_stages(API)[-1].last("EXPOSE").text)
    for probe, path in (
        ("startup", "/healthz"),
        ("liveness", "/healthz"),
        ("readiness", "/readyz"),
    ):
        assert api[f"{probe}Probe"]["httpGet"] == {"path": path, "port": port["name"]}


def test_what_a_worker_is_asked_is_at_the_port_that_its_image_opens() -> None:
    (worker,) = DEPLOYMENTS["worker"]["spec"]["template"]["spec"]["containers"]
    (port,) = worker["ports"]
    stage = read_stages(WORKER)[-1]
    opened = {stage.last("EXPOSE").text, stage.environment["ADAPTER_SAFETY_WORKER_PORT"]}
    assert opened == {str(port["containerPort"])}
    paths = {"startup": "/readyz", "liveness": "/healthz", "readiness": "/readyz"}
    for probe, path in paths.items():
        assert worker[f"{probe}Probe"]["httpGet"] == {"path": path, "port": port["name"]}


def test_nothing_selects_or_lets_in_what_is_not_there() -> None:
    for name in ("api", "worker"):
        labels = PODS[name]["metadata"]["labels"]
        assert DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"] == labels
    api = PODS["api"]["metadata"]["labels"]
    assert of_kind("Service")["api"]["spec"]["selector"] == api
    assert of_kind("PodDisruptionBudget")["api"]["spec"]["selector"]["matchLabels"] == api
    policies = {name: each["spec"] for name, each in of_kind("NetworkPolicy").items()}
    assert policies["api"]["podSelector"]["matchLabels"] == api
    assert policies["worker"]["podSelector"]["matchLabels"] == PODS["worker"]["metadata"]["labels"]
    everyone = policies["all"]["podSelector"]["matchLabels"].items()
    assert all(everyone <= pod["metadata"]["labels"].items() for pod in PODS.values())
    assert "ingress" not in policies["all"]


def test_a_stopped_worker_has_time_for_its_drain_and_modules_after_it() -> None:
    drain = float(of_kind("ConfigMap")["adapter-safety"]["data"]["ADAPTER_SAFETY_DRAIN_S"])
    grace = DEPLOYMENTS["worker"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= drain + 60


def test_a_disruption_leaves_an_api() -> None:
    budget = of_kind("PodDisruptionBudget")["api"]["spec"]["minAvailable"]
    assert DEPLOYMENTS["api"]["spec"]["replicas"] > budget >= 1


def test_the_autoscaler_counts_the_jobs_that_wait_and_run(database_url: str) -> None:
    scaler = KEDA["keda/autoscale.yaml: ScaledObject worker"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in DEPLOYMENTS
    (trigger,) = scaler["triggers"]
    login = KEDA["keda/autoscale.yaml: TriggerAuthentication jobs"]
    assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
    (secret,) = login["spec"]["secretTargetRef"]
    assert secret["key"] in of_kind("Secret")[secret["name"]]["stringData"]
    records = SqlRecords(database_url)
    waiting, running, ended = (a_kept_job(records) for _ in range(3))
    records.claim(running.id, lease_s=60)
    records.request_cancel(ended.id)
    records.close()
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text(trigger["metadata"]["query"])) == 2
    engine.dispose()
    assert waiting.status == "queued"
