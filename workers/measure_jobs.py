"""The work of evaluations and frontiers: fetch what they name, measure, publish what came of it."""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile

from app.domain.adapter import CONFIG_FILE, REPORT_FILE, WEIGHTS_FILE, AdapterManifest, FileEntry
from app.domain.dataset import Row
from app.domain.errors import ArtifactCorrupt, ResultNotFound
from app.domain.evaluation import EvaluateRecipe, FrontierRecipe, GateRecipe, Judging, Sets, Subject
from app.domain.job import Checkpointed, Job, JobResult
from app.domain.measured import SubjectUse
from app.domain.method import Method
from app.domain.report import Report
from app.intake.dataset_rows import read_rows
from app.intake.manifest import read_manifest
from app.intake.preflight import check_fit_chat
from app.jobs.adapters import stored_modules
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Records
from app.jobs.render import as_json
from workers.compute import Compute
from workers.measure.evaluate import EvaluateInput, Measurand, evaluate
from workers.measure.frontier import FrontierInput, FrontierKept, find_frontier
from workers.measure.gate import GateInput, judged_by_gate, measure_patch
from workers.measure.kept import Kept, read_kept, write_kept
from workers.measure.session import Rows
from workers.measure.switch import LoadedAdapter
from workers.output import file_entry, write_config
from workers.pipeline import Shelves
from workers.run import NamedCheckpoint, PatchInput, Run

TRANSCRIPTS_FILE = "transcripts.jsonl"
KEPT_FILE = "kept.jsonl"


@dataclass(frozen=True)
class Fetcher:
    """Brings what a measuring job names into its folder."""

    records: Records  # of the job's tenant
    artifacts: Artifacts
    models: Models
    folder: Path  # empty, ours alone

    def rows(self, sets: Sets) -> Rows:
        return {role: self._rows(dataset) for role, dataset in sets.by_role.items()}

    def _rows(self, dataset: str) -> Sequence[Row]:
        path = self.folder / f"{dataset}.jsonl"
        if not path.exists():
            self.artifacts.fetch(self.records.dataset(dataset).file, path)
        with path.open("rb") as file:
            return list(read_rows(file, responses="optional"))

    def model(self, model_id: str, what: str) -> NamedCheckpoint:
        return NamedCheckpoint(model_id, self.models.checkpoint(model_id, field=what))

    def guard(self, judging: Judging) -> NamedCheckpoint | None:
        return self.model(judging.guard_model, "guard_model") if judging.guard_model else None

    def subject(self, subject: Subject, number: int, chat: NamedCheckpoint) -> Measurand:
        """Raises ResultNotFound where a job's adapter is gone, and what the gate raises."""
        folder = self.folder / f"subject-{number}"
        folder.mkdir()
        known: Mapping[str, FileEntry] | None = None
        if subject.adapter is not None:
            known = self.records.adapter(subject.adapter).files
            for name, file in known.items():
                self.artifacts.fetch(file, folder / name)
        else:
            self._unpack(str(subject.job), folder)
        manifest = read_manifest(folder, known=known or {})
        return measurand(SubjectUse(subject.name, manifest.id, subject.job), folder, manifest, chat)

    def _unpack(self, job_id: str, folder: Path) -> None:
        job = self.records.job(job_id)
        if job.result is None or job.result.archive is None:
            raise ResultNotFound(job=job_id, status=job.status, what="adapter")
        archive = folder.with_suffix(".zip")
        self.artifacts.fetch(job.result.archive, archive)
        unpack_adapter(archive, folder)


def measurand(
    use: SubjectUse, folder: Path, manifest: AdapterManifest, chat: NamedCheckpoint
) -> Measurand:
    """An adapter that fits the chat model. Raises what `check_fit_chat` raises."""
    check_fit_chat(stored_modules(manifest), chat.checkpoint, chat.id)
    return Measurand(use, LoadedAdapter.read(folder, manifest))


def unpack_adapter(archive: Path, folder: Path) -> None:
    """The two files of an archive that we have made. Raises ArtifactCorrupt."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                packed.extract(name, folder)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArtifactCorrupt(what="adapter") from error


@dataclass
class Keeper:
    """Keeps what was told with the job's record after each batch, for whoever goes on."""

    job: Job
    lease: Lease
    records: Records
    artifacts: Artifacts
    folder: Path
    total: int = 0  # rows, of all subjects; 0: somebody else tells the progress
    all_kept: list[Kept] = field(default_factory=list)

    def fetch(self) -> None:
        """What an earlier attempt has kept."""
        found = self.job.checkpoint
        if found:
            path = self.folder / "earlier.jsonl"
            self.artifacts.fetch(found.file, path)
            read_kept(path, self.all_kept)

    def on_more(self, _: Kept) -> None:
        """The file first: a record never names a file that is not there."""
        path, done = self.folder / KEPT_FILE, sum(len(kept.told) for kept in self.all_kept)
        write_kept(path, self.all_kept)
        file = file_entry(path)
        self.artifacts.put(path, file)
        kept = Checkpointed(done, file)
        self.records.note_checkpoint(self.job.id, fence=self.job.fence, checkpoint=kept)
        if self.total:
            self.lease.progress(done, self.total, {"rows": done}, "rows")
        else:
            self.lease.check()


@dataclass(frozen=True)
class MeasureJob:
    """One job."""

    job: Job
    lease: Lease
    fetcher: Fetcher
    compute: Compute
    patch_input: Callable[[Job], PatchInput]  # what a patch of the job's adapter is given
    shelves: Shelves | None

    def run(self) -> JobResult:
        """Raises what the work raises, and `Stopped` where the lease says so."""
        recipe = self.job.recipe
        if isinstance(recipe, EvaluateRecipe):
            return self._evaluate(recipe)
        if isinstance(recipe, FrontierRecipe):
            return self._frontier(recipe)
        raise ValueError(f"job {self.job.id} ({self.job.kind}) has no recipe")

    def _evaluate(self, recipe: EvaluateRecipe) -> JobResult:
        chat = self.fetcher.model(self.job.chat_model, "chat_model")
        rows = self.fetcher.rows(recipe.sets)
        subjects = [self.fetcher.subject(s, i, chat) for i, s in enumerate(recipe.adapters)]
        total = (1 + len(subjects)) * sum(len(list(given)) for given in rows.values())
        keeper, kept = self._keeper(total), Kept()
        with keeping(keeper, [kept]):
            guard = self.fetcher.guard(recipe.judging)
            given = EvaluateInput(chat, subjects, rows, recipe.sets.by_role, recipe.judging, guard)
            found = evaluate(given, self.compute, kept)
        return self._publish(as_json(found.report.as_json()), found.transcripts)

    def _frontier(self, recipe: FrontierRecipe) -> JobResult:
        given = FrontierInput(
            self.patch_input(self._patched_by(recipe)),
            recipe,
            self.fetcher.rows(recipe.sets),
            self.fetcher.rows(recipe.held_out),
        )
        work = self.fetcher.folder / "families"
        work.mkdir()
        both = FrontierKept(Kept(split="tuning"), Kept(split="held out"))
        with keeping(self._keeper(0), [both.tuning, both.held_out]):
            found = find_frontier(given, work, self.compute, both, self._on_step, self.shelves)
        return self._publish(as_json(found.report.as_json()), found.transcripts)

    def _patched_by(self, recipe: FrontierRecipe) -> Job:
        """The job as one that needs the safety module, where a family does."""
        if recipe.safety_module is None:
            return self.job
        method = Method(name="salora", safety_module=recipe.safety_module)
        return replace(self.job, method=method)

    def _keeper(self, total: int) -> Keeper:
        fetcher = self.fetcher
        return Keeper(
            self.job, self.lease, fetcher.records, fetcher.artifacts, fetcher.folder, total
        )

    def _on_step(self, done: int, total: int, name: str, event: Mapping[str, object]) -> None:
        self.lease.progress(done, total, event, name)

    def _publish(self, report: str, told: Iterable[Mapping[str, object]]) -> JobResult:
        self.lease.check()
        path = self.fetcher.folder / REPORT_FILE
        path.write_bytes(report.encode())
        artifacts = self.fetcher.artifacts
        return JobResult(
            report=put(artifacts, path),
            archive=None,
            transcripts=put_transcripts(artifacts, self.fetcher.folder, told),
        )


def gate_job(
    job: Job,
    recipe: GateRecipe,
    run: Run,
    lease: Lease,
    places: tuple[Records, Artifacts, Models, Path],
    compute: Compute,
) -> tuple[Report, FileEntry]:
    """Measure a patch that is made and not yet published: its report with what was found, and the
    transcripts."""
    fetcher = Fetcher(*places)
    chat, rows = run.given.chat, fetcher.rows(recipe.sets)
    after = fetcher.folder / "after"
    after.mkdir()
    copyfile(run.out / WEIGHTS_FILE, after / WEIGHTS_FILE)
    write_config(run.given, after)
    keeper = Keeper(job, lease, fetcher.records, fetcher.artifacts, fetcher.folder)
    kept = Kept()
    with keeping(keeper, [kept]):
        given = GateInput(
            chat, run.given.folder, after, rows, recipe.sets.by_role, recipe.judging,
            fetcher.guard(recipe.judging),
        )  # fmt: skip
        found = measure_patch(given, compute, kept)
    told = put_transcripts(fetcher.artifacts, fetcher.folder, found.transcripts)
    return judged_by_gate(run.result(), found.report), told


@contextmanager
def keeping(keeper: Keeper, kept: list[Kept]) -> Iterator[None]:
    """Fill these with what an earlier attempt has kept, and keep what they get."""
    keeper.all_kept = kept
    keeper.fetch()
    for each in kept:
        each.on_more = keeper.on_more
    yield


def put(artifacts: Artifacts, path: Path) -> FileEntry:
    file = file_entry(path)
    artifacts.put(path, file)
    return file


def put_transcripts(
    artifacts: Artifacts, folder: Path, told: Iterable[Mapping[str, object]]
) -> FileEntry:
    """JSON lines: one prompt and one answer each."""
    path = folder / TRANSCRIPTS_FILE
    with path.open("w") as file:
        file.writelines(json.dumps(one) + "\n" for one in told)
    return put(artifacts, path)
