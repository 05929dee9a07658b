"""Fixtures for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from tests.factory import World, make_world
from tests.service import Service, running

torch.set_num_threads(1)  # because two cores serve the tests' own processes too
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def llama_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A tiny Llama pair and its adapter; read only."""
    return make_world(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def model_root(llama_world: World) -> Path:
    """The folder that a service takes as ADAPTER_SAFETY_MODEL_ROOT: ids `base` and `chat`."""
    return llama_world.base.parent


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    """`adapter-safety up`, shared by all tests that only talk to it."""
    with running(tmp_path_factory.mktemp("service"), model_root) as started:
        yield started


@pytest.fixture(scope="session")
def http(service: Service) -> Iterator[httpx.Client]:
    """Plain HTTP to the shared service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client
