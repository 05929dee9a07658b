"""The local mode of the command line: its output is the report's, and warnings are sentences."""

import json
import subprocess
import sys

from tests.factory import World

RUN = """
import logging, sys
import workers.pipeline
from app.cli import program

own = workers.pipeline._module

def telling(*given):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger("workers.pipeline").log(level, "said at %d", level)
    own(*given)

workers.pipeline._module = telling
program()(sys.argv[1:], standalone_mode=False)
heavy = {"structlog", "prometheus_client", "opentelemetry.sdk", "celery"} & set(sys.modules)
assert not heavy, heavy
"""


def test_what_is_logged_meanwhile_leaves_the_output_whole(llama_world: World) -> None:
    models = ["--base-model", str(llama_world.base), "--chat-model", str(llama_world.chat)]
    words = ["score", str(llama_world.adapter), *models, "--json"]
    command = [sys.executable, "-c", RUN, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"]
    said = {line for line in done.stderr.splitlines() if line.startswith("said")}
    assert said == {"said at 30"}
