"""The work of patch and score jobs of one pair of models: fetch their adapters, examine them
together, publish what came of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from app.alignment.device import DeviceCache
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.domain.adapter import REPORT_FILE, AdapterManifest, FileEntry, StoredAdapter
from app.domain.evaluation import GateRecipe
from app.domain.job import Job, JobResult
from app.domain.report import Report, ReportKind
from app.intake.manifest import read_manifest
from app.intake.preflight import check_fit, check_fit_chat
from app.jobs.adapters import stored_modules
from app.jobs.held import Held
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Records
from app.observe.watch import moved, phase, watching
from workers.compute import Compute
from workers.output import file_entry, write_beside_weights, write_report, zip_adapter
from workers.pipeline import NamedCheckpoint, PatchInput, Progress, Run, Shelves, examine
from workers.prefetch import have_weights
from workers.same_model import check_digest


@dataclass(frozen=True)
class PatchJobs:
    records: Records
    artifacts: Artifacts
    models: Models
    folder_of: Callable[[Job], Path]  # empty, of this job alone
    threads: int
    shelves: Shelves | None
    memory: DeviceCache | None = None
    device: str = "cpu"  # where whole models run
    _opened: dict[str, NamedCheckpoint] = field(default_factory=dict)

    def run(self, held: Sequence[Held]) -> None:
        """Bring each job to its end, as soon as it is through."""
        prepared = [each.attempt(partial(self._run, each)) for each in held]
        runs = [run for run in prepared if run]
        if runs:
            examine(runs, threads=self.threads, shelves=self.shelves, memory=self.memory)

    def _run(self, held: Held) -> Run:
        """Raises what fetching and checking raise, and `Stopped` where the lease says so."""
        given = self.input_of(held.job)
        out = self.folder_of(held.job) / "out"
        out.mkdir()
        lease = held.lease

        def on_module(progress: Progress) -> None:
            event = {"module": progress.module, "cosine": progress.cosine}
            lease.progress(progress.done, progress.total, event)

        def on_end(run: Run) -> None:
            result = held.attempt(partial(self._published, held.job, run, lease))
            if result:
                held.succeed(result)

        kind: ReportKind = "score" if held.job.kind == "score" else "patch"
        return Run(given, out, kind, on_module, on_end)

    def _published(self, job: Job, run: Run, lease: Lease) -> JobResult:
        """Raises what went wrong with the run, `Stopped` and Unavailable."""
        report, transcripts = run.result(), None
        for layer in report.layers:
            watching().decided(layer.decision)
        if isinstance(job.recipe, GateRecipe):
            with phase("measure"):
                report, transcripts = self._gate(job, job.recipe, run, lease)
        with phase("save"):
            archive = _written(run, report)
        lease.check()
        stored = store(self.artifacts, run.out / REPORT_FILE, archive)
        return replace(stored, transcripts=transcripts)

    def _gate(
        self, job: Job, recipe: GateRecipe, run: Run, lease: Lease
    ) -> tuple[Report, FileEntry]:
        """The report with what was measured, and the transcripts."""
        from workers.measure_jobs import gate_job  # here, because transformers takes seconds

        fetcher = (self.records.of(job.tenant), self.artifacts, self.models, self.folder_of(job))
        compute = Compute(self.threads, torch.device(self.device))
        return gate_job(job, recipe, run, lease, fetcher, compute)

    def input_of(self, job: Job) -> PatchInput:
        """What a patch of the job's adapter is given. Raises what fetching and checking raise."""
        folder = self.folder_of(job) / "adapter"
        manifest = self._fetch(self.records.of(job.tenant).adapter(job.only_adapter), folder)
        chat = self._model(job.chat_model, "chat_model")
        base = None if job.base_model is None else self._model(job.base_model, "base_model")
        # Again, because a model may have changed since the job was submitted.
        if base is None:
            check_fit_chat(stored_modules(manifest), chat.checkpoint, chat.id)
        else:
            models = (base.checkpoint, chat.checkpoint)
            check_fit(stored_modules(manifest), *models, base.id, chat.id)
            have_weights(manifest.modules, *models)
        return PatchInput(folder, manifest, base, chat, job.method, self._safety(job, chat))

    def _safety(self, job: Job, chat: NamedCheckpoint) -> SafetyModule | None:
        """Raises KitOfAnotherModel, where the chat model has changed."""
        if job.method.safety_module is None:
            return None
        part = self.records.of(job.tenant).part("safety_module", job.method.safety_module)
        path = self.folder_of(job) / SAFETY_MODULE_FILE
        self.artifacts.fetch(part.file, path)
        module = SafetyModule.load(path)
        check_digest("safety module", module.made_of, chat)
        return module

    def _fetch(self, adapter: StoredAdapter, folder: Path) -> AdapterManifest:
        """The adapter's files, their digests checked, through the same gate as at the upload."""
        folder.mkdir()
        for name, file in adapter.files.items():
            self.artifacts.fetch(file, folder / name)
        return read_manifest(folder, known=adapter.files)

    def _model(self, model_id: str, field: str) -> NamedCheckpoint:
        """Read once for all jobs, so that all have the same."""
        if field not in self._opened:
            checkpoint = self.models.checkpoint(model_id, field=field)
            self._opened[field] = NamedCheckpoint(model_id, checkpoint)
        return self._opened[field]


def _written(run: Run, report: Report) -> Path | None:
    """The archive of a patch; of a score there is the report alone."""
    if run.kind != "patch":
        write_report(report, run.out)
        return None
    write_beside_weights(run.given, report, run.out)
    archive = run.out.with_name("patched.zip")
    zip_adapter(run.out, archive)
    moved("save", archive.stat().st_size)
    return archive


def store(artifacts: Artifacts, report: Path, archive: Path | None = None) -> JobResult:
    """Publish a job's files by their content. Raises Unavailable."""
    return JobResult(_put(artifacts, report), _put(artifacts, archive) if archive else None)


def _put(artifacts: Artifacts, path: Path) -> FileEntry:
    file = file_entry(path)
    artifacts.put(path, file)
    return file
