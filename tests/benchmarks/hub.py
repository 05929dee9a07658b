"""What reading by the tensor saves, against fetching whole files as `snapshot_download` does.

A Llama of 0.27 B parameters in bfloat16 lies on a hub in a process of its own, on loopback: bytes
and requests are real, and the network costs nothing. So the ratio of bytes is the one that a real
network would see, and that of seconds is nearer to one than there.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from huggingface_hub import constants, snapshot_download
from transformers import LlamaConfig, LlamaForCausalLM

from app.domain.checkpoint import Checkpoint
from app.storage.hub.cache import HubCache
from app.storage.hub.models import HubModels
from app.storage.hub.reader import Hub
from app.storage.hub.session import HubSession
from app.storage.models import FolderModels
from tests.hub.server import LocalHub

NAME = "org/model"
ADAPTERS = {"q_proj, v_proj": ("q_proj", "v_proj"), "all linear": None}


def make_model(folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=16,
        num_attention_heads=16,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="200MB")


def serve(folder: Path, pipe: Connection) -> None:
    """Until the other end says something; the bytes that each time were sent."""
    with LocalHub() as hub:
        hub.create(NAME)
        hub.commit(NAME, {path.name: path for path in folder.iterdir()})
        pipe.send(hub.endpoint)
        while pipe.recv():
            pipe.send(hub.log.bytes_of(NAME))
            hub.log.clear()


def by_the_tensor(kinds: tuple[str, ...] | None, endpoint: str, work: Path) -> None:
    models = HubModels(
        FolderModels(work, with_hub=True),
        Hub(HubSession(endpoint, token=False)),
        HubCache(work / "hub", 1 << 40),
    )
    with models.opened({}, lambda *_: None, lambda _: None) as opened:
        checkpoint = opened.checkpoint(NAME, field="chat_model")
        checkpoint.have([checkpoint.tensors[name] for name in wanted(checkpoint, kinds)])


def wanted(checkpoint: Checkpoint, kinds: tuple[str, ...] | None) -> list[str]:
    linear = [name for name in checkpoint.tensors if "_proj.weight" in name]
    return [name for name in linear if not kinds or any(kind in name for kind in kinds)]


def whole(endpoint: str, work: Path) -> None:
    snapshot_download(NAME, token=False, endpoint=endpoint, cache_dir=work)


def timed(act: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory() as work:
        begun = time.perf_counter()
        act(Path(work))
        return time.perf_counter() - begun


def main() -> None:
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    folder = Path(tempfile.mkdtemp())
    make_model(folder)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs))
    server.start()
    endpoint = ours.recv()

    def measured(act: Callable[[Path], None]) -> tuple[float, int]:
        seconds = min(timed(act) for _ in range(3))
        ours.send(True)
        return seconds, ours.recv() // 3

    whole_s, whole_bytes = measured(lambda work: whole(endpoint, work))
    print(f"whole files (snapshot_download): {whole_bytes / 1e6:.0f} MB, {whole_s:.2f} s")
    for name, kinds in ADAPTERS.items():
        seconds, count = measured(lambda work, kinds=kinds: by_the_tensor(kinds, endpoint, work))
        print(
            f"{name}: {count / 1e6:.0f} MB, {count / whole_bytes:.3f} of the bytes, "
            f"{seconds / whole_s:.2f} of the time"
        )
    ours.send(False)
    server.join()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
