"""Fixtures for every test."""

import os

os.environ.pop("OPENBLAS_CORETYPE", None)  # tests are of the processor's own kernels

import app  # noqa: F401 # because it settles how numpy multiplies, and must come before numpy

# isort: split

import fcntl
import gc
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import torch
from hypothesis import settings
from sqlalchemy import create_engine, exc, make_url, text

from app.storage import migrate
from app.storage.records import SqlRecords
from app.storage.tables import metadata
from tests.chat_models import save_chat_model, save_with_a_letter_that_breaks
from tests.factory import World, make_world
from tests.hub.fixtures import local_hub as local_hub
from tests.hub_models import HubWorld, make_hub_world
from tests.servers import RedisServer, S3Server
from tests.service import Service, running

if TYPE_CHECKING:
    from app.demo.safety_world.world import SafetyWorld

# no deadline, because the machine is shared; in CI the same examples each time
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")
torch.set_num_threads(1)  # because two cores serve the tests' own processes too
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # of what tests start: waiting threads leave the cores
gc.disable()  # until all is imported that stays


def pytest_collection_finish() -> None:
    """Never look for garbage among the million objects that torch and transformers are: the tests
    of one file took a fifth less time so."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def llama_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A tiny Llama pair and its adapter; read only."""
    return make_world(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def model_root(llama_world: World) -> Path:
    """The folder that a service takes as ADAPTER_SAFETY_MODEL_ROOT: ids `base` and `chat`, and
    `talk`, which has a tokenizer, and `breaks`, which is the same but for its letter z."""
    talk = save_chat_model(llama_world.base.parent / "talk")
    save_with_a_letter_that_breaks(talk, llama_world.base.parent / "breaks")
    return llama_world.base.parent


@pytest.fixture(scope="session")
def hub_world(tmp_path_factory: pytest.TempPathFactory) -> HubWorld:
    """What tests put on a hub; read only."""
    return make_hub_world(tmp_path_factory.mktemp("hub-world"))


@pytest.fixture(scope="session")
def small_talk(tmp_path_factory: pytest.TempPathFactory) -> "SafetyWorld":
    """Two models, an adapter that has unlearnt some refusals, and data; read only."""
    from tests.small_talk import make_small_talk  # here, because it imports a world's parts

    return make_small_talk(tmp_path_factory.mktemp("small-talk"))


@pytest.fixture(scope="session")
def safety_world(pytestconfig: pytest.Config) -> "SafetyWorld":
    """Made once, by whichever process is first, and kept in pytest's cache for the next run."""
    from app.demo.safety_world.world import make_safety_world  # here, because it imports torch
    from tests.lab.small import EFFORT, LANGUAGE

    cache = pytestconfig.cache
    assert cache is not None
    folder = Path(cache.mkdir("safety-worlds"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_safety_world(folder, LANGUAGE, EFFORT)


@pytest.fixture(scope="session", params=["SQLite and a folder", "PostgreSQL and S3"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_root: Path
) -> Iterator[Service]:
    """`adapter-safety up`, shared by all tests that only talk to it; in both set-ups."""
    with ExitStack() as stack:
        settings = {} if "SQLite" in request.param else stack.enter_context(servers())
        data = tmp_path_factory.mktemp("service")
        yield stack.enter_context(running(data, model_root, **settings))


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Settings of a service whose records, artifacts and messages lie elsewhere."""
    with ExitStack() as stack:
        s3, redis = S3Server(), RedisServer()
        stack.callback(s3.stop)
        stack.callback(redis.remove)
        s3.start()
        redis.start()
        url = stack.enter_context(contextmanager(new_postgres_database)())
        yield {
            "ADAPTER_SAFETY_DATABASE_URL": url,
            "ADAPTER_SAFETY_STORAGE_URL": s3.url("artifacts"),
            "ADAPTER_SAFETY_REDIS_URL": redis.url,
            **s3.environment,
        }


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def http(service: Service) -> Iterator[httpx.Client]:
    """Plain HTTP to the shared service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


POSTGRES_URL = os.environ.get(
    "ADAPTER_SAFETY_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)


def missing(reason: str) -> None:
    """In CI a missing server is a failure: a check that never runs must not look green."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run_on_postgres_server(statement: str) -> None:
    engine = create_engine(
        POSTGRES_URL, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
    )
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def new_postgres_database() -> Iterator[str]:
    name = f"adapter_safety_test_{uuid.uuid4().hex[:12]}"
    try:
        run_on_postgres_server(f"CREATE DATABASE {name}")
    except (exc.OperationalError, exc.NoSuchModuleError, ModuleNotFoundError) as error:
        missing(f"no PostgreSQL to test with: {error}")
    yield make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    run_on_postgres_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_with_schema() -> Iterator[str]:
    for url in new_postgres_database():
        migrate.upgrade(url)
        yield url


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "records.sqlite3"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the schema and no rows."""
    if request.param == "sqlite":
        path = tmp_path / "records.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_with_schema"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_with_schema")
    empty(url)
    return url


def empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/data folder/records.sqlite3"
    else:
        yield from new_postgres_database()


@pytest.fixture
def records(database_url: str) -> Iterator[SqlRecords]:
    records = SqlRecords(database_url)
    yield records
    records.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    given = os.environ.get("ADAPTER_SAFETY_TEST_REDIS_URL")
    if given:
        yield given
        return
    server = RedisServer()
    server.start()
    yield server.url
    server.remove()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for a test that stops it."""
    server = RedisServer()
    server.start()
    yield server
    server.remove()
