"""A push to a hub, and nobody there: the hub's own webhook, the service as a user starts it, and a
pull request at the end."""

import time
from pathlib import Path

import httpx
import yaml

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.factory import World
from tests.hub.server import LocalHub
from tests.service import running

REPO = "acme/adapter"
SECRET = "from end to end"
POLICY = {
    "version": 1,
    "repositories": {"include": ["acme/*"]},
    "pairs": [{"match": "org/{name}", "base": "base", "chat": "{name}"}],
    "method": {"name": "safe_lora", "select": {"by": "all"}},
    "actions": {"patched": ["pull_request"]},
}


def test_a_push_becomes_a_pull_request_with_no_human(
    llama_world: World, model_root: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    with LocalHub() as hub:
        settings = {
            **hub.environment(hub.token),
            "ADAPTER_SAFETY_HOOK_SECRET": SECRET,
            "ADAPTER_SAFETY_POLICY": str(policy),
            "ADAPTER_SAFETY_MODERATE_EVERY_S": "0.2",
        }
        with running(tmp_path / "data", model_root, **settings) as service:
            hub.webhooks.add(f"{service.url}/v1/hooks/huggingface", SECRET)
            hub.create(REPO)
            names = (CONFIG_FILE, WEIGHTS_FILE)
            hub.commit(REPO, {n: (llama_world.adapter / n).read_bytes() for n in names})
            settled(service.url)
            deliveries = hub.webhooks.wait()  # of our pull request, too
            found = settled(service.url)
        assert not hub.crashes
    assert {each.status for each in deliveries} == {202}
    refs = [ref["ref"] for each in deliveries for ref in each.payload.get("updatedRefs", ())]
    assert "refs/pr/1" in refs
    (talk,) = hub.discussions(REPO)
    assert talk.is_pull_request
    by_verdict = sorted((each["verdict"], each["why"]) for each in found)
    # the first commit of a repository has no adapter yet
    assert [verdict for verdict, _ in by_verdict] == ["inconclusive", "patched"]


def settled(url: str) -> list[dict[str, str]]:
    """All verdicts, once there are two and each is done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        items: list[dict[str, str]] = httpx.get(f"{url}/v1/verdicts").json()["items"]
        if len(items) >= 2 and all(each["state"] == "done" for each in items):
            return items
        time.sleep(0.2)
    raise AssertionError(f"not done: {items}")
