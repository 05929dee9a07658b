"""What a job gives where nothing goes wrong: computed in this process, without any service."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.method import Method, Selection
from app.intake.manifest import read_manifest
from app.storage.models import FolderModels
from tests.factory import World
from tests.reports import wherever_from
from workers.output import write_patched_adapter
from workers.pipeline import NamedCheckpoint, PatchInput


@dataclass(frozen=True)
class Undisturbed:
    weights: dict[str, Tensor]
    report: dict[str, Any]


def undisturbed_run(world: World, work: Path) -> Undisturbed:
    """Of the job that `processes.body_of` asks for."""
    sent, out = work / "sent", work / "out"
    for folder in (sent, out):
        folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):  # and no README, as tests upload it
        shutil.copy(world.adapter / name, sent)
    models = FolderModels(world.base.parent)
    base, chat = (
        NamedCheckpoint(name, models.checkpoint(name, field=f"{name}_model"))
        for name in ("base", "chat")
    )
    method = Method(projector="exact", select=Selection("all", None))
    given = PatchInput(sent, read_manifest(sent), base, chat, method)
    report = write_patched_adapter(given, out, threads=1, on_module=lambda _: None)
    told = json.loads(json.dumps(report.as_json()))
    return Undisturbed(load_file(out / WEIGHTS_FILE), wherever_from(told))
