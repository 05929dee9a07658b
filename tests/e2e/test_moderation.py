"""A push to a hub, and nobody there: the hub's own webhook, the service as a user starts it with
models by their ids, and at the end a pull request that PEFT loads and signed webhooks."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load
from transformers import LlamaForCausalLM

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.hub.server import LocalHub
from tests.hub_models import BASE, CHAT, HubWorld, put
from tests.service import running
from tests.webhooks_receiver import Receiver

REPO = "acme/adapter"
SECRET = "from end to end"
POLICY = {
    "version": 1,
    "repositories": {"include": ["acme/*"]},
    "pairs": [{"match": "org/{name}", "base": BASE, "chat": "org/{name}"}],
    "method": {"name": "safe_lora", "select": {"by": "all"}},
    "actions": {"patched": ["pull_request", "webhook"]},
}


class Told:
    """What came of one push."""

    def __init__(self, hub: LocalHub, verdicts: list[dict[str, Any]], commit: str) -> None:
        self.hub, self.verdicts, self.commit = hub, verdicts, commit
        self.deliveries = hub.webhooks.wait()
        self.events: list[dict[str, Any]] = []
        self.evidence = ""


@pytest.fixture(scope="module")
def told(hub_world: HubWorld, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The push, and all that follows until nothing more does."""
    folder = tmp_path_factory.mktemp("moderation")
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    with LocalHub() as hub, Receiver() as receiver:
        put(hub, BASE, hub_world.base)
        put(hub, CHAT, hub_world.chat)
        settings = {
            **hub.environment(hub.token),
            "ADAPTER_SAFETY_HOOK_SECRET": SECRET,
            "ADAPTER_SAFETY_POLICY": str(folder / "policy.yaml"),
            "ADAPTER_SAFETY_MODERATE_EVERY_S": "0.2",
            "ADAPTER_SAFETY_WEBHOOK_EVERY_S": "0.2",
            "ADAPTER_SAFETY_WEBHOOK_ALLOW": "127.0.0.0/8",
        }
        with running(folder / "data", folder, **settings) as service:
            asked = {"url": receiver.url, "events": ["job.succeeded", "verdict.issued"]}
            made = httpx.post(f"{service.url}/v1/webhooks", json=asked).json()
            hub.create(REPO)
            hub.webhooks.add(f"{service.url}/v1/hooks/huggingface", SECRET)
            names = (CONFIG_FILE, WEIGHTS_FILE)
            files = {name: (hub_world.adapter / name).read_bytes() for name in names}
            commit = hub.commit(REPO, files)
            settled(service.url)
            hub.webhooks.wait()  # of our own pull request, too
            found = Told(hub, settled(service.url), commit)
            received = receiver.wait_for(2)
            found.evidence = httpx.get(f"{service.url}/v1/verdicts/{found.verdicts[0]['id']}").text
            found.events = [each.verified(made["secret"]) for each in received]
            yield found
        assert not hub.crashes


def settled(url: str) -> list[dict[str, Any]]:
    """All verdicts, once there are some and each is done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        items: list[dict[str, Any]] = httpx.get(f"{url}/v1/verdicts").json()["items"]
        if items and all(each["state"] == "done" for each in items):
            return items
        time.sleep(0.2)
    raise AssertionError(f"not done: {items}")


def test_a_push_leads_to_one_verdict_with_its_evidence(told: Told) -> None:
    (verdict,) = told.verdicts
    assert verdict["verdict"] == "patched"
    for evidence in (REPO, told.commit, told.hub.sha(BASE), told.hub.sha(CHAT)):
        assert evidence in told.evidence


def test_the_pull_requests_adapter_loads_and_is_not_the_pushed_one(
    told: Told, hub_world: HubWorld, tmp_path: Path
) -> None:
    (talk,) = told.hub.discussions(REPO)
    assert talk.is_pull_request
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (tmp_path / name).write_bytes(told.hub.read(REPO, "refs/pr/1", name))
    model = LlamaForCausalLM.from_pretrained(hub_world.chat, dtype=torch.float32)
    PeftModel.from_pretrained(model, str(tmp_path))
    patched = load((tmp_path / WEIGHTS_FILE).read_bytes())
    pushed = load((hub_world.adapter / WEIGHTS_FILE).read_bytes())
    assert patched.keys() == pushed.keys()
    changed = {name for name in patched if not torch.equal(patched[name], pushed[name])}
    assert changed == {name for name in patched if "lora_B" in name}
    assert "8 of 8 modules" in told.hub.read(REPO, "refs/pr/1", "README.md").decode()


def test_our_own_pull_request_is_told_to_us_and_causes_nothing(told: Told) -> None:
    assert {each.status for each in told.deliveries} == {202}
    refs = [ref["ref"] for each in told.deliveries for ref in each.payload.get("updatedRefs", ())]
    assert "refs/pr/1" in refs
    assert len(told.verdicts) == len(told.hub.discussions(REPO)) == 1


def test_others_are_told_by_signed_webhooks(told: Told) -> None:
    events = {event["type"]: event["data"] for event in told.events}
    assert set(events) == {"job.succeeded", "verdict.issued"}
    assert events["job.succeeded"]["revisions"] == {
        BASE: told.hub.sha(BASE),
        CHAT: told.hub.sha(CHAT),
    }
    assert events["verdict.issued"]["verdict"] == "patched"
