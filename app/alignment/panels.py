"""`V` in the layout that one pass can work on: panels of columns, each contiguous.

`C B = V (V^T B) / ||V||_F` (Safe LoRA, arXiv 2405.16833). A panel `V_j`, `(d_out, width)`, gives
its part of `T = V^T B`, which is `T_j = V_j^T B`, and with it its part of the product, `V_j T_j`,
while it lies in the caches. So `V` is read once, where rows would have to be read twice.

A stored weight comes by rows, so the panels are filled once (`hold`) and then used as often as one
likes: for this job's columns, to be kept in a cache, on another device.

`V` is kept in the checkpoints' own dtype. The difference of two float numbers never underflows, so
its rounding is at most half an ulp of each element (2^-9 in bfloat16, 2^-12 in float16), and none
where the two lie within a factor of two of each other (Sterbenz). What it was is measured.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.difference import BLOCK_ELEMENTS, Difference, SquaredNorm, work_dtype

PANEL_ELEMENTS = 1 << 21  # 4 MiB in bfloat16, 512 columns of 4096 rows
LEAST_WIDTH = 32  # columns; a product with fewer than 8 is slow, and a panel is cut in four
NEARLY_EXACT = 1e-3  # relative; far below what rounding the weights themselves has put into V
HOLD_BLOCK = 1 << 20  # elements subtracted at once; they are not touched again
MEASURED_BLOCKS = 32  # one block of rows in so many has its rounding measured


@dataclass(frozen=True)
class PanelLayout:
    """How `V` `(d_out, d_in)` is cut. The last panel is filled up with zero columns."""

    d_out: int
    d_in: int
    width: int
    by_columns: bool  # a panel is kept as (width, d_out): the stored rows are columns of `V`

    @property
    def count(self) -> int:
        return -(-self.d_in // self.width)

    @property
    def panel_shape(self) -> tuple[int, int]:
        """Of one panel as kept."""
        return (self.width, self.d_out) if self.by_columns else (self.d_out, self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of all panels as kept."""
        return (self.count, *self.panel_shape)

    def columns(self, panel: Tensor) -> Tensor:
        """A kept panel, or several, as `(..., d_out, width)`."""
        return panel.transpose(-1, -2) if self.by_columns else panel


def layout_of(v: Difference) -> PanelLayout:
    width = PANEL_ELEMENTS // v.d_out // LEAST_WIDTH * LEAST_WIDTH
    return PanelLayout(v.d_out, v.d_in, min(v.d_in, max(LEAST_WIDTH, width)), v.transposed)


def kept_bytes(v: Difference) -> int:
    """What `hold` needs for `V`."""
    return math.prod(layout_of(v).shape) * v.kept_dtype.itemsize


@dataclass(frozen=True)
class HeldPanels:
    """The panels of one `V`, in memory or mapped from a file; not to be written to."""

    layout: PanelLayout
    tensor: Tensor  # layout.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype


class Held(NamedTuple):
    panels: HeldPanels
    rounding: float  # ||V - rounded V||_F / ||V||_F


def hold(v: Difference, scratch: Scratch) -> Held:
    """`V` as panels, in the scratch memory: in the checkpoints' dtype where that is nearly exact,
    else in float32. The rounding is measured over one block of rows in `MEASURED_BLOCKS`."""
    held = _held(v, v.kept_dtype, scratch)
    if held.rounding <= NEARLY_EXACT:
        return held
    return _held(v, v.work_dtype, scratch)


def _held(v: Difference, dtype: torch.dtype, scratch: Scratch) -> Held:
    layout = layout_of(v)
    tensor = scratch.take("panels", layout.shape, dtype)
    left = layout.d_in - (layout.count - 1) * layout.width
    layout.columns(tensor[-1])[:, left:] = 0
    exact, lost = SquaredNorm(), SquaredNorm()
    for i, rows in enumerate(v.blocks(HOLD_BLOCK)):
        chat, base = (weight.rows(rows.start, rows.stop) for weight in (v.chat, v.base))
        _subtract(chat.to(dtype), base.to(dtype), _places(layout, tensor, rows))
        if i % MEASURED_BLOCKS == 0:
            _measure_rounding(chat, base, dtype, scratch, exact, lost)
    rounding = math.sqrt(lost.value / exact.value) if exact.value > 0 else 0.0
    return Held(HeldPanels(layout, tensor), rounding)


def add_squares(panels: Tensor, squares: SquaredNorm, scratch: Scratch) -> None:
    """One panel's or more panels' `||.||_F^2`: not finite where `V` is not."""
    for block in torch.split(panels.view(-1), BLOCK_ELEMENTS):
        squares.add(widened(block, scratch))


def widened(block: Tensor, scratch: Scratch) -> Tensor:
    """`block` in the dtype that sums are taken in: itself, or in the scratch memory."""
    dtype = work_dtype(block.dtype)
    if block.dtype == dtype:
        return block
    return scratch.take("wide", tuple(block.shape), dtype).copy_(block)


def _places(layout: PanelLayout, tensor: Tensor, rows: slice) -> list[Tensor]:
    """Where stored rows belong among the panels: views whose columns stand side by side in them,
    `(rows, n)` or, of several panels, `(panels, rows, width)`."""
    if layout.by_columns:
        return [tensor.view(-1, layout.d_out)[rows]]
    whole = layout.d_in // layout.width
    rest = layout.d_in - whole * layout.width
    return [tensor[:whole, rows], *([tensor[whole, rows, :rest]] if rest else [])]


def _subtract(chat: Tensor, base: Tensor, places: Iterable[Tensor]) -> None:
    """Each place gets its columns of `chat - base`, at once: a copy less."""
    begin = 0
    for place in places:
        width = math.prod(place.shape) // len(chat)
        parts = [given[:, begin : begin + width] for given in (chat, base)]
        if place.ndim == 3:
            parts = [torch.unflatten(each, 1, (len(place), -1)).transpose(0, 1) for each in parts]
        torch.sub(*parts, out=place)
        begin += width


def _measure_rounding(
    chat: Tensor,
    base: Tensor,
    dtype: torch.dtype,
    scratch: Scratch,
    exact: SquaredNorm,
    lost: SquaredNorm,
) -> None:
    """Add `||V||_F^2` and `||V - V as dtype||_F^2`, taken in a dtype that holds the difference."""
    wide = torch.float32 if dtype.itemsize == 2 else torch.float64
    v, other = (scratch.take(name, tuple(chat.shape), wide) for name in ("wide", "other"))
    v.copy_(chat).sub_(other.copy_(base))
    exact.add(v)
    lost.add(v.sub_(other.copy_(chat.to(dtype) - base.to(dtype))))
