"""What the compose file promises, and what it may not."""

import re

import pytest

from app.config import Settings
from tests.deploy.compose import ROOT, dockerfile_of, read_compose, seconds, variables
from tests.deploy.dockerfile import read_stages

COMPOSE = read_compose()
SERVICES = COMPOSE["services"]
ONE_SHOT = {"migrate", "bucket"}
LASTING = sorted(SERVICES.keys() - ONE_SHOT)
EXAMPLE = (ROOT / "docker" / "env.example").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_down_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"}
    assert not any("docker.sock" in volume for volume in service["volumes"])
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"memory", "cpus", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_watched_started_again_and_given_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert seconds(service["stop_grace_period"]) > 10  # compose's own would be that
    file = dockerfile_of(service)
    watched = service.get("healthcheck") or (file and read_stages(file)[-1].all("HEALTHCHECK"))
    assert watched, name


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_what_runs_once_ends_by_itself_and_the_others_wait_for_it(name: str) -> None:
    assert SERVICES[name]["restart"] in ("no", "on-failure:5")
    waiting = [s["depends_on"][name] for s in SERVICES.values() if name in s.get("depends_on", {})]
    assert waiting
    assert {each["condition"] for each in waiting} == {"service_completed_successfully"}


def test_a_worker_has_time_for_its_drain_and_one_module_more() -> None:
    for name in ("worker", "worker-gpu"):
        grace = seconds(SERVICES[name]["stop_grace_period"])
        assert grace >= Settings.model_fields["drain_s"].default + 30


def test_the_api_has_time_for_its_open_streams() -> None:
    command = read_stages(dockerfile_of(SERVICES["api"]))[-1].last("CMD").command
    graceful = int(command[command.index("--timeout-graceful-shutdown") + 1])
    assert seconds(SERVICES["api"]["stop_grace_period"]) >= graceful + 10


def test_only_the_api_has_a_port_and_it_is_this_machines_own() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    assert SERVICES["api"]["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("name", ["postgres", "redis", "s3", "bucket"])
def test_what_has_a_known_password_or_none_is_reached_from_inside_alone(name: str) -> None:
    assert SERVICES[name]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_the_bundled_s3_has_no_password_but_what_is_given() -> None:
    assert set(SERVICES["s3"]["environment"].values()) == {""}
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert list(read_compose(given)["services"]["s3"]["environment"].values()) == ["a", "b"]


def test_a_given_password_is_the_servers_and_the_clients() -> None:
    services = read_compose({"POSTGRES_PASSWORD": "sesame"})["services"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "sesame"
    for name in ("api", "worker", "worker-gpu", "migrate"):
        assert ":sesame@postgres/" in services[name]["environment"]["ADAPTER_SAFETY_DATABASE_URL"]


def test_redis_keeps_every_write_and_evicts_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command  # because an evicted key is a lost message
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_what_is_kept_is_in_named_volumes() -> None:
    used = {volume.partition(":")[0] for s in SERVICES.values() for volume in s["volumes"]}
    assert used - {"./models"} == COMPOSE["volumes"].keys()
    for name in ("api", "worker", "worker-gpu"):
        assert "./models:/models:ro" in SERVICES[name]["volumes"]


def test_the_gpu_is_asked_for_by_its_profile_alone() -> None:
    reserved = {n for n, s in SERVICES.items() if "reservations" in s["deploy"]["resources"]}
    assert reserved == {"worker-gpu"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "1", "capabilities": ["gpu"]}
    assert SERVICES["worker-gpu"]["build"]["args"]["PIP_EXTRA_INDEX_URL"] == ""


def test_every_setting_that_it_or_the_example_names_is_one() -> None:
    named = {name for s in SERVICES.values() for name in s.get("environment", {})}
    named |= set(re.findall(r"ADAPTER_SAFETY_[A-Z_]+", EXAMPLE.replace("ADAPTER_SAFETY_*", "")))
    ours = {name for name in named if name.startswith("ADAPTER_SAFETY_")}
    known = {f"ADAPTER_SAFETY_{name.upper()}" for name in Settings.model_fields}
    assert ours
    assert ours <= known


def test_every_variable_is_in_the_example_with_its_default() -> None:
    described = dict(re.findall(r"^#([A-Z0-9_]+)=(\S*)", EXAMPLE, re.MULTILINE))
    assert variables() <= described.keys()
    filled = read_compose({"POSTGRES_PASSWORD": "adapter_safety", **_with_defaults(described)})
    assert filled["services"]["worker"] == SERVICES["worker"]


def _with_defaults(described: dict[str, str]) -> dict[str, str]:
    """Those lines of the example that say what is the case without them."""
    other = {f"ADAPTER_SAFETY_{name}_URL" for name in ("STORAGE", "DATABASE", "REDIS")}
    return {name: value for name, value in described.items() if name not in other}


def test_it_works_without_an_env_file_and_hands_one_on() -> None:
    for name in ("api", "worker", "worker-gpu", "migrate"):
        assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]
        assert all(value for value in SERVICES[name]["environment"].values())
