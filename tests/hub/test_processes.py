"""How another process comes to this hub."""

import os
import subprocess
import sys

from tests.hub.server import LocalHub

REPO = "acme/adapter"
READ = """
from huggingface_hub import hf_hub_download, model_info
assert model_info("acme/adapter").private
print(open(hf_hub_download("acme/adapter", "weights.safetensors")).read())
"""


def test_a_process_uses_the_hub_that_its_environment_names(local_hub: LocalHub) -> None:
    local_hub.create(REPO, private=True)
    local_hub.commit(REPO, {"weights.safetensors": "found"})
    environment = {**os.environ, **local_hub.environment(local_hub.token)}
    read = [sys.executable, "-c", READ]
    done = subprocess.run(read, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"
    assert not local_hub.log.with_authorization("cdn")
