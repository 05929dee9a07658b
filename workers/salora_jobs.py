"""The work of SaLoRA's jobs: fetch what they name, do it, publish what came of it."""

import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.alignment.kit import KIT_CONFIG, KIT_TENSORS, Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.domain.adapter import (
    CONFIG_FILE,
    PATCHED_FILES,
    README_FILE,
    REPORT_FILE,
    WEIGHTS_FILE,
    FileEntry,
)
from app.domain.dataset import Row
from app.domain.errors import ArtifactCorrupt
from app.domain.job import Checkpointed, Job, JobResult
from app.domain.salora import (
    ExportRecipe,
    InitRecipe,
    Part,
    PartKind,
    SafetyModuleRecipe,
    TrainRecipe,
    kit_facts,
    part_id,
    safety_module_facts,
)
from app.intake.dataset_rows import read_rows
from app.intake.manifest import read_manifest
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Records
from workers.compute import Compute
from workers.language_models import tokenizer_digest
from workers.output import file_entry, zip_files
from workers.patch_job import store
from workers.run import NamedCheckpoint
from workers.safety_module import MadePart, make_safety_module, settings_of
from workers.salora_export import ExportInput, export, export_report, write_beside
from workers.salora_init import InitInput, make_kit
from workers.salora_train import TrainJobInput, train_and_export
from workers.same_model import check_digest
from workers.trainer_checkpoints import pack, unpack

CHECK_EVERY_S = 1.0  # because each asks the database
KIT_FILES = (CONFIG_FILE, WEIGHTS_FILE, KIT_CONFIG, KIT_TENSORS, REPORT_FILE, README_FILE)


@dataclass(frozen=True)
class SaloraJob:
    """One job."""

    job: Job
    lease: Lease
    records: Records  # of the job's tenant
    artifacts: Artifacts
    models: Models
    folder: Path  # empty, ours alone
    compute: Compute

    def run(self) -> JobResult:
        """Raises what the work raises, and `Stopped` where the lease says so."""
        recipe = self.job.recipe
        if isinstance(recipe, SafetyModuleRecipe):
            return self._safety_module(recipe)
        if isinstance(recipe, InitRecipe):
            return self._kit(recipe)
        if isinstance(recipe, TrainRecipe):
            return self._train(recipe)
        if isinstance(recipe, ExportRecipe):
            return self._export(recipe)
        raise ValueError(f"job {self.job.id} ({self.job.kind}) has no recipe")

    # ----------------------------------------------------------------------------------- kinds
    def _safety_module(self, recipe: SafetyModuleRecipe) -> JobResult:
        chat, out = self._chat(), self._new("out")
        facts = safety_module_facts(recipe, _digest(chat), tokenizer_digest(chat))
        if found := self._known("safety_module", facts):
            return found
        with self._rows(recipe.dataset) as rows:
            made = make_safety_module(chat, rows, recipe, out, self.compute, self._on_step)
        return self._publish("safety_module", made, out / SAFETY_MODULE_FILE, chat)

    def _kit(self, recipe: InitRecipe) -> JobResult:
        chat, out = self._chat(), self._new("out")
        if found := self._known("kit", kit_facts(recipe, _digest(chat), tokenizer_digest(chat))):
            return found
        safety = self._safety(recipe.safety_module)
        if recipe.dataset is None:
            given = InitInput(chat, safety, None, recipe)
            made = make_kit(given, out, self.compute, self._on_step)
        else:
            with self._rows(recipe.dataset) as rows:
                given = InitInput(chat, safety, rows, recipe)
                made = make_kit(given, out, self.compute, self._on_step)
        archive = self.folder / "kit.zip"
        zip_files(out, KIT_FILES, archive)
        return self._publish("kit", made, archive, chat)

    def _train(self, recipe: TrainRecipe) -> JobResult:
        chat, kit = self._chat(), self._fetched_kit(recipe.kit)
        check_digest("kit", Kit.load(kit).config["made_of"], chat)
        self._fetch_checkpoint()
        with self._rows(recipe.dataset) as rows:
            given = TrainJobInput(chat, kit, rows, recipe)
            train_and_export(
                given,
                self._new("out"),
                self.folder,
                self.compute,
                self._on_step,
                self._keep_checkpoint,
            )
        return self._archive(self.folder / "out")

    def _export(self, recipe: ExportRecipe) -> JobResult:
        chat, kit = self._chat(), Kit.load(self._fetched_kit(recipe.kit))
        check_digest("kit", kit.config["made_of"], chat)
        adapter, out = self._new("adapter"), self._new("out")
        files = self.records.adapter(self.job.only_adapter).files
        for name, file in files.items():
            self.artifacts.fetch(file, adapter / name)
        given = ExportInput(adapter, read_manifest(adapter, known=files), kit, recipe.rank)
        rows = export(given, out, self._on_step)
        report = export_report(given, rows, chat.reference, settings_of(recipe))
        write_beside(report, out)
        return self._archive(out)

    # ---------------------------------------------------------------------------------- inputs
    def _chat(self) -> NamedCheckpoint:
        checkpoint = self.models.checkpoint(self.job.chat_model, field="chat_model")
        return NamedCheckpoint(self.job.chat_model, checkpoint)

    def _new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    @contextmanager
    def _rows(self, dataset: str) -> Iterator[Iterator[Row]]:
        """The data set's rows, read as they are needed."""
        path = self.folder / "data.jsonl"
        self.artifacts.fetch(self.records.dataset(dataset).file, path)
        with path.open("rb") as file:
            yield self.checked(read_rows(file))

    def checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Raises `Stopped` between two rows: to encode them all may take hours."""
        at = time.monotonic()
        for row in rows:
            if time.monotonic() - at > CHECK_EVERY_S:
                self.lease.check()
                at = time.monotonic()
            yield row

    def _safety(self, part: str) -> SafetyModule:
        path = self.folder / SAFETY_MODULE_FILE
        self.artifacts.fetch(self.records.part("safety_module", part).file, path)
        return SafetyModule.load(path)

    def _fetched_kit(self, part: str) -> Path:
        archive, folder = self.folder / "given.zip", self._new("kit")
        self.artifacts.fetch(self.records.part("kit", part).file, archive)
        unpack_kit(archive, folder)
        return folder

    def _fetch_checkpoint(self) -> None:
        found = self.job.checkpoint
        if found:
            tar = self.folder / "checkpoint.tar"
            self.artifacts.fetch(found.file, tar)
            unpack(tar, self.folder, found.step)
            tar.unlink()

    # --------------------------------------------------------------------------------- results
    def _on_step(self, done: int, total: int, name: str, event: Mapping[str, object]) -> None:
        self.lease.progress(done, total, event, name)

    def _keep_checkpoint(self, folder: Path, step: int) -> None:
        """The file first: a record never names a file that is not there."""
        tar = self.folder / "checkpoint.tar"
        pack(folder, tar)
        kept = Checkpointed(step, self._put(tar))
        self.records.note_checkpoint(self.job.id, fence=self.job.fence, checkpoint=kept)
        tar.unlink()

    def _known(self, kind: PartKind, made_of: Mapping[str, object]) -> JobResult | None:
        """The result of an earlier job that was asked the same."""
        part = self.records.find_part(kind, part_id(made_of))
        if part is None or not (self.artifacts.has(part.file) and self.artifacts.has(part.report)):
            return None
        return JobResult(report=part.report, archive=None, part=part.id)

    def _publish(
        self, kind: PartKind, made: MadePart, path: Path, chat: NamedCheckpoint
    ) -> JobResult:
        self.lease.check()
        part = Part(
            kind=kind,
            id=made.id,
            created_at=datetime.now(UTC),
            chat_model=chat.id,
            chat_digest=_digest(chat),
            file=self._put(path),
            report=self._put(self.folder / "out" / REPORT_FILE),
            modules=made.modules,
            made_of=made.made_of,
        )
        kept = self.records.add_part(part)
        return JobResult(report=kept.report, archive=None, part=kept.id)

    def _archive(self, out: Path) -> JobResult:
        archive = self.folder / "adapter.zip"
        zip_files(out, PATCHED_FILES, archive)
        self.lease.check()
        return store(self.artifacts, out / REPORT_FILE, archive)

    def _put(self, path: Path) -> FileEntry:
        file = file_entry(path)
        self.artifacts.put(path, file)
        return file


def unpack_kit(archive: Path, folder: Path) -> None:
    """A kit's files by their names, and no others. Raises ArtifactCorrupt."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for name in KIT_FILES:
                packed.extract(name, folder)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArtifactCorrupt(what="kit") from error


def _digest(chat: NamedCheckpoint) -> str:
    return chat.checkpoint.digest
