"""Fixtures for every test."""

import os
from pathlib import Path

import pytest
import torch

from tests.factory import World, make_world

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
