"""The work of a patch or score job: fetch the adapter, examine it, publish what came of it."""

from dataclasses import dataclass
from pathlib import Path

from app.domain.adapter import REPORT_FILE, AdapterManifest, FileEntry
from app.domain.job import Job, JobResult
from app.intake.manifest import read_manifest
from app.intake.preflight import check_fit
from app.jobs.adapters import stored_modules
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Records
from workers.output import file_entry, write_patched_adapter, write_score, zip_adapter
from workers.pipeline import NamedCheckpoint, PatchInput, Progress, Shelves


@dataclass(frozen=True)
class PatchJob:
    records: Records
    artifacts: Artifacts
    models: Models
    folder: Path  # empty, ours alone
    threads: int
    shelves: Shelves | None

    def run(self, job: Job, lease: Lease) -> JobResult:
        """Raises what patching and storing raise, and `Stopped` where the lease says so."""
        given = self._input(job)
        out = self.folder / "out"
        out.mkdir()

        def on_module(progress: Progress) -> None:
            event = {"module": progress.module, "cosine": progress.cosine}
            lease.progress(progress.done, progress.total, event)

        archive = None
        write = write_score if job.kind == "score" else write_patched_adapter
        write(given, out, threads=self.threads, on_module=on_module, shelves=self.shelves)
        if job.kind == "patch":
            archive = self.folder / "patched.zip"
            zip_adapter(out, archive)
        lease.check()
        return self._publish(out / REPORT_FILE, archive)

    def _input(self, job: Job) -> PatchInput:
        folder = self.folder / "adapter"
        manifest = self._fetch(job.adapter, folder)
        base = self._model(job.base_model, "base_model")
        chat = self._model(job.chat_model, "chat_model")
        # Again, because a model may have changed since the job was submitted.
        names = (job.base_model, job.chat_model)
        check_fit(stored_modules(manifest), base.checkpoint, chat.checkpoint, *names)
        return PatchInput(folder, manifest, base, chat, job.method)

    def _fetch(self, adapter_id: str, folder: Path) -> AdapterManifest:
        """The adapter's files, their digests checked, through the same gate as at the upload."""
        folder.mkdir()
        files = self.records.adapter(adapter_id).files
        for name, file in files.items():
            self.artifacts.fetch(file, folder / name)
        return read_manifest(folder, known=files)

    def _model(self, model_id: str, field: str) -> NamedCheckpoint:
        return NamedCheckpoint(model_id, self.models.checkpoint(model_id, field=field))

    def _publish(self, report: Path, archive: Path | None) -> JobResult:
        return JobResult(self._stored(report), None if archive is None else self._stored(archive))

    def _stored(self, path: Path) -> FileEntry:
        file = file_entry(path)
        self.artifacts.put(path, file)
        return file
