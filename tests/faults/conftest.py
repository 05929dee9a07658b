"""A service in parts for each test, and what its jobs must give."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.chat_models import save_chat_model
from tests.factory import World, perturb, save_adapter
from tests.faults.processes import QUICK, Site
from tests.faults.undisturbed import Undisturbed, undisturbed_run
from tests.servers import RedisServer

MakeSite = Callable[..., Site]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of which a job has sixteen modules and lasts a second or two: long enough to be hit."""
    folder = tmp_path_factory.mktemp("world")
    sizes = {"hidden_size": 512, "intermediate_size": 8, "num_hidden_layers": 4, "vocab_size": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    model.save_pretrained(folder / "base")
    perturb(model, 0.1)
    model.save_pretrained(folder / "chat")
    save_chat_model(folder / "talk")  # for trainings
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    save_adapter(model, folder / "adapter", "llama", target_modules=targets)
    return World(folder / "base", folder / "chat", folder / "adapter", "llama")


@pytest.fixture(scope="session")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed_run(world, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def make_site(tmp_path: Path, world: World, own_redis: RedisServer) -> Iterator[MakeSite]:
    """A site with nothing started; keywords are settings, in their environment's lower case."""
    with ExitStack() as stack:

        def make(
            *, database_url: str | None = None, redis: RedisServer = own_redis, **settings: Any
        ) -> Site:
            given = {f"ADAPTER_SAFETY_{k.upper()}": str(v) for k, v in settings.items()}
            data = tmp_path / "data"
            url = database_url or f"sqlite:///{tmp_path / 'records.sqlite3'}"
            (data / "staging").mkdir(parents=True, exist_ok=True)
            site = Site(data, world.base.parent, redis, url, {**QUICK, **given})
            stack.callback(site.close)
            return site

        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """With an API and one worker."""
    site = make_site()
    site.start_worker()
    site.start_api()
    return site
