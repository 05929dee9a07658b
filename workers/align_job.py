"""The work of an alignment job: have a pair's modules kept before an adapter needs them."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from app import __version__
from app.alignment.blocks import Scratch, torch_threads
from app.domain.adapter import REPORT_FILE
from app.domain.alignment import AlignmentReport, Shaped, Warmed
from app.domain.job import Job, JobResult
from app.jobs.align import modules_to_align
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Records
from app.jobs.render import as_json
from app.observe.context import bound
from app.observe.watch import phase
from workers.alignments import Alignments
from workers.checkpoints import open_pair
from workers.patch_job import store
from workers.pipeline import NamedCheckpoint, Shelves, pair_of
from workers.prefetch import have_weights
from workers.warming import warm


@dataclass(frozen=True)
class AlignJob:
    records: Records
    artifacts: Artifacts
    models: Models
    folder: Path  # empty, ours alone
    threads: int
    shelves: Shelves | None

    def run(self, job: Job, lease: Lease) -> JobResult:
        """Raises what choosing and warming raise, and `Stopped` where the lease says so."""
        base = self._model(job.models[0], "base_model")
        chat = self._model(job.chat_model, "chat_model")
        records = self.records.of(job.tenant)
        adapter = records.adapter(job.adapter) if job.adapter else None
        of_adapter = adapter.modules if adapter else None
        modules = modules_to_align(job, of_adapter, base.checkpoint, chat.checkpoint)
        have_weights(modules, base.checkpoint, chat.checkpoint)
        warmed = self._warmed(job, modules, base, chat, lease)
        path = self.folder / REPORT_FILE
        path.write_bytes(as_json(_report(job, base, chat, warmed).as_json()).encode())
        return store(self.artifacts, path)

    def _warmed(
        self,
        job: Job,
        modules: Sequence[Shaped],
        base: NamedCheckpoint,
        chat: NamedCheckpoint,
        lease: Lease,
    ) -> list[Warmed]:
        done: list[Warmed] = []
        with (
            ExitStack() as files,
            torch_threads(self.threads),
            open_pair(chat.checkpoint, base.checkpoint) as models,
        ):
            shelf = self.shelves(pair_of(base, chat)) if self.shelves else None
            alignments = files.enter_context(closing(Alignments(models, Scratch(), shelf)))
            for module in modules:
                with bound(module=module.name), phase("align"):
                    done.append(warm(alignments, module, job.method.projection))
                told = {"module": module.name, "source": done[-1].source}
                lease.progress(len(done), len(modules), told)
        return done

    def _model(self, model_id: str, field: str) -> NamedCheckpoint:
        return NamedCheckpoint(model_id, self.models.checkpoint(model_id, field=field))


def _report(
    job: Job, base: NamedCheckpoint, chat: NamedCheckpoint, warmed: Sequence[Warmed]
) -> AlignmentReport:
    projection = job.method.projection
    lost = [module for module in warmed if module.source is None]
    reasons = sorted({module.note for module in lost})
    warnings = [f"{len(lost)} of {len(warmed)} modules are not kept: {'; '.join(reasons)}."]
    return AlignmentReport(
        base_model=base.reference,
        chat_model=chat.reference,
        projector=projection.projector,
        energy=projection.energy,
        rank=projection.rank,
        modules=warmed,
        size_bytes=sum(module.size_bytes for module in warmed),
        warnings=warnings if lost else [],
        versions={"adapter-safety": __version__, "torch": torch.__version__},
    )
