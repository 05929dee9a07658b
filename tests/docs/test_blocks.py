"""Every fenced block of the pages: run where it can be, looked at where it cannot, and never
neither."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.demo.safety_world.world import SafetyWorld
from app.domain.access import parse_scopes
from app.storage.keys import SqlKeys
from tests.docs import data, forked, stages
from tests.docs.blocks import DATA, Block, blocks
from tests.docs.looks import look
from tests.docs.sandbox import Sandbox
from tests.docs.site import ROOT, pages
from tests.docs.stages import PAGES, Furniture, Stage, make_furniture
from tests.hub.server import LocalHub
from tests.hub_models import put
from tests.service import Service, running
from tests.small_talk import ADAPTER
from tests.web.kept import a_report, keep, keep_verdict, layers

FOUND = {page: blocks(page) for page in pages()}
RUN = [page for page, found in FOUND.items() if any(block.is_run for block in found)]
EVERY = [block for found in FOUND.values() for block in found]


@dataclass(frozen=True)
class Around:
    """What all pages share."""

    service: Service
    made: Furniture
    environment: dict[str, str]
    forks: str  # where `tests.docs.forked` listens
    key: str


@pytest.fixture(scope="module")
def around(small_talk: SafetyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Around]:
    folder = tmp_path_factory.mktemp("pages")
    with ExitStack() as stack:
        hub = stack.enter_context(LocalHub())
        environment = hub.environment()
        forks = stack.enter_context(_forks(environment))  # first, because it imports for seconds
        made = make_furniture(folder / "demo", small_talk)
        stages.furnish(folder, made)
        _publish(hub, small_talk)
        models = folder / "path" / "to"
        shutil.copytree(made.demo / "data" / "models" / "demo", models / "demo")
        service = stack.enter_context(running(folder / "data", models, **environment))
        keep_verdict(service, keep(service, folder, a_report(layers(14))))
        yield Around(service, made, environment, forks, _a_key(service))
        assert not hub.crashes


def _a_key(service: Service) -> str:
    keys = SqlKeys(f"sqlite:///{service.data}/records.sqlite3")
    _, text = keys.create("reader", "default", parse_scopes("admin"))
    keys.close()
    return text


def _publish(hub: LocalHub, world: SafetyWorld) -> None:
    """What the pages take from a hub."""
    put(hub, "org/base", world.base)
    hub.move_ref("org/chat", "refs/tags/v1.0", put(hub, "org/chat", world.chat))
    put(hub, "someone/adapter", world.adapter(ADAPTER))


@contextmanager
def _forks(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of `tests.docs.forked`. Not under tmp_path, because a unix socket's path must
    be shorter than 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="forks-") as folder:
        address = f"{folder}/s"
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.forked", address],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        assert server.stdout.readline().strip() == forked.READY
        try:
            yield address
        finally:
            server.kill()
            server.communicate()


@pytest.fixture
def sandbox(page: Path, around: Around, tmp_path: Path) -> Sandbox:
    stages.furnish(tmp_path, around.made)
    stage = PAGES.get(page.name, Stage())
    stage.prepare(tmp_path, around.made)
    for folder in (".bin", ".venv/bin"):
        forked.write_shim(tmp_path / folder / "adapter-safety", around.forks)
    url = around.service.url
    names = {"http://127.0.0.1:8000", "https://your-service", "https://service.example"}
    return Sandbox(
        tmp_path,
        _environment(tmp_path, around),
        {**dict.fromkeys(names, url), **stage.stands_for},
        {"key": around.key},
    )


def _environment(folder: Path, around: Around) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTER_SAFETY_")}
    path = os.pathsep.join([f"{folder}/.bin", str(Path(sys.executable).parent), kept["PATH"]])
    url = around.service.url
    given = {"HOME": str(folder), "PATH": path, "KEY": around.key, "api": f"{url}/v1"}
    return {**kept, **around.environment, **given, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_block_of_the_page_does_what_the_page_says(page: Path, sandbox: Sandbox) -> None:
    for block in FOUND[page]:
        if block.is_run:
            sandbox.do(block)
    PAGES.get(page.name, Stage()).after(sandbox.namespace)


@pytest.mark.parametrize("block", EVERY, ids=lambda block: block.where)
def test_the_block_is_run_or_says_why_not_and_names_nothing_that_is_not_there(block: Block) -> None:
    assert block.is_known, f"{block.where}: {block.language or 'no language'}, and no reason"
    if block.language in DATA:
        data.check(block)
    if block.is_script:
        look(block)
