"""A trained adapter and its kit -> an ordinary LoRA on the chat model's own weights.

Exact: `A2 = [A; A0]`, `B2 = [C B, -C B0]`, of twice the rank. (`B <- C B` alone, as the authors'
script exports, is no LoRA of the original weights.) Or recompressed to a rank, with the error said.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.kit import Kit
from app.alignment.lora import LoraPair, update_norm
from app.alignment.safety_module import safety_share
from app.alignment.salora_start import exported, recompressed
from app.domain.adapter import (
    README_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    LoraModule,
    TensorEntry,
    kind_of,
    layer_of,
    module_order,
)
from app.domain.report import ModelReference
from app.domain.salora_errors import AdapterDoesNotFitKit
from app.domain.salora_report import ExportRow, SaloraReport
from app.jobs.render import as_markdown
from workers.checkpoints import finite, read_tensor
from workers.peft_folder import Settings, write_adapter
from workers.safety_module import versions, write_report
from workers.sweeping import OnStep

Pair = tuple[Tensor, Tensor]
NOISE = 1e-7  # relative to ||A||_F ||B||_F; float32 has no more digits


@dataclass(frozen=True)
class ExportInput:
    folder: Path  # holds the trained adapter's validated files
    manifest: AdapterManifest
    kit: Kit
    rank: int | None  # of the result; None: exact


def export(given: ExportInput, out: Path, on_step: OnStep) -> list[ExportRow]:
    """Write configuration and weights into the folder `out`.

    Raises AdapterDoesNotFitKit, NonFiniteTensor, and what `on_step` raises.
    """
    check_fits(given.manifest, given.kit)
    pairs = dict(trained_pairs(given))
    found = {name: _exported(name, pair, given) for name, pair in pairs.items()}
    kit = given.kit.config
    settings = Settings(
        kit["scaling"], kit["use_rslora"], kit["chat_model"]["id"], is_transposed(given.manifest)
    )
    write_adapter({name: (f.a, f.b) for name, f in found.items()}, settings, out)
    rows = []
    for i, (name, each) in enumerate(found.items(), 1):
        rows.append(each.row(name, settings.scaling, pairs[name][0].shape[0], given.kit))
        on_step(i, len(found), "module", {"module": name})
    return rows


def check_fits(manifest: AdapterManifest, kit: Kit) -> None:
    """Raises AdapterDoesNotFitKit."""
    has, wanted = {module.name for module in manifest.modules}, set(kit.modules)
    if has != wanted:
        odd = sorted(has ^ wanted, key=module_order)
        raise AdapterDoesNotFitKit(modules=odd, reason="only one of both has them")
    if manifest.full_weights:
        names = [weight.name for weight in manifest.full_weights]
        raise AdapterDoesNotFitKit(modules=names, reason="full weights bypass the safety module")
    for module in manifest.modules:
        _check_module(module, kit)


def _check_module(module: LoraModule, kit: Kit) -> None:
    fixed, rank = kit.modules[module.name], kit.config["ranks"][module.name]
    reason = None
    if module.magnitude or module.bias or module.layer_type != "linear":
        reason = "a kit's modules have A and B alone: no DoRA, no bias, no embedding"
    elif module.rank != rank:
        reason = f"the adapter has rank {module.rank}, the kit {rank}"
    elif module.d_out != fixed.safety.shape[0]:
        reason = f"the adapter has {module.d_out} outputs, the kit {fixed.safety.shape[0]}"
    elif fixed.start and module.d_in != fixed.start.a.shape[1]:
        reason = f"the adapter has {module.d_in} inputs, the kit {fixed.start.a.shape[1]}"
    elif abs(module.scaling - kit.config["scaling"]) > 1e-6 * abs(kit.config["scaling"]):
        reason = f"the adapter's scaling is {module.scaling:g}, the kit's {kit.config['scaling']:g}"
    if reason:
        raise AdapterDoesNotFitKit(modules=[module.name], reason=reason)


def trained_pairs(given: ExportInput) -> Iterator[tuple[str, Pair]]:
    """`A` and `B` by module. Raises NonFiniteTensor."""
    with (given.folder / WEIGHTS_FILE).open("rb") as file:
        for module in given.manifest.modules:
            a, b = (_factor(file.fileno(), entry) for entry in (module.lora_a, module.lora_b))
            yield module.name, (a, b)


def _factor(descriptor: int, entry: TensorEntry) -> Tensor:
    return finite(read_tensor(descriptor, entry), entry.label, "adapter")


def is_transposed(manifest: AdapterManifest) -> bool:
    return bool(manifest.config.get("fan_in_fan_out"))


@dataclass(frozen=True)
class _Exported:
    a: Tensor  # (R, d_in) float32, as it is written
    b: Tensor  # (d_out, R) float32
    error: float | None

    def row(self, name: str, scaling: float, trained_rank: int, kit: Kit) -> ExportRow:
        return ExportRow(
            module=name,
            layer=layer_of(name),
            kind=kind_of(name),
            shape=(self.b.shape[0], self.a.shape[1]),
            rank=self.a.shape[0],
            trained_rank=trained_rank,
            update_norm=self._update_norm(scaling),
            safety_share=safety_share(self.a, self.b, kit.modules[name].safety),
            error=self.error,
        )

    def _update_norm(self, scaling: float) -> float:
        """Zero where the halves cancel: what is left then is rounding."""
        size = float(torch.linalg.matrix_norm(self.a) * torch.linalg.matrix_norm(self.b))
        norm = update_norm(LoraPair(self.a, self.b, scaling))
        return norm if norm > NOISE * abs(scaling) * size else 0.0


def _exported(name: str, pair: Pair, given: ExportInput) -> _Exported:
    fixed, error = given.kit.modules[name], None
    factors = exported(*pair, fixed.start, fixed.safety)
    if given.rank is not None and given.rank < factors.a.shape[0]:
        factors, error = recompressed(factors, given.rank)
    finite(factors.b.float(), name, "export")
    return _Exported(factors.a.float(), factors.b.float(), error)


def export_report(
    given: ExportInput, rows: list[ExportRow], chat: ModelReference, settings: dict[str, object]
) -> SaloraReport:
    return SaloraReport(
        kind="salora_export",
        chat_model=chat,
        settings=settings,
        data=[],
        modules=rows,
        warnings=list(export_warnings(rows, given.rank)),
        versions=versions(),
    )


def export_warnings(rows: list[ExportRow], rank: int | None) -> Iterator[str]:
    worst = max((row.error or 0.0 for row in rows), default=0.0)
    if worst > 0:
        yield (
            f"Recompressed to rank {rank}: up to {worst:.3g} of a module's update was lost, "
            "relative to its norm."
        )
    if rank is not None and all(row.error is None for row in rows):
        yield f"Rank {rank} is not below what the export has anyway: it is exact."
    zero = sum(row.update_norm == 0 for row in rows)
    if zero:
        yield f"The update of {zero} of {len(rows)} modules is zero: nothing was trained there."


def write_beside(report: SaloraReport, out: Path) -> None:
    """What an exported adapter has besides its weights: report and README."""
    write_report(report, out)
    (out / README_FILE).write_bytes(as_markdown(report.as_json()).encode())
