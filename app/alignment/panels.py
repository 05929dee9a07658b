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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.difference import BLOCK_ELEMENTS, Difference, SquaredNorm, work_dtype

PANEL_ELEMENTS = 1 << 20  # 4 MiB in float32: 256 columns of 4096 rows, in two cores' L2 caches
LEAST_WIDTH = 256  # columns; of fewer, products and the filling of panels took twice as long
MOST_ELEMENTS = 1 << 23  # of a panel; from 32768 rows on narrower ones, for the memory
NEARLY_EXACT = 1e-3  # relative; far below what rounding the weights themselves has put into V
MEASURED_BLOCKS = 64  # one block of rows in so many has its rounding measured


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

    def check(self, shape: Sequence[int]) -> None:
        """Raises ValueError where panels of this shape are not cut so."""
        if tuple(shape) != self.shape:
            raise ValueError(f"panels of shape {tuple(shape)}, not {self.shape}")

    def columns(self, panel: Tensor) -> Tensor:
        """A kept panel, or several, as `(..., d_out, width)`."""
        return panel.transpose(-1, -2) if self.by_columns else panel


def layout_of(v: Difference) -> PanelLayout:
    width = max(LEAST_WIDTH, _power_below(PANEL_ELEMENTS // v.d_out))
    width = min(width, _power_below(MOST_ELEMENTS // v.d_out), v.d_in)
    return PanelLayout(v.d_out, v.d_in, width, v.transposed)


def _power_below(number: int) -> int:
    """The largest power of two that is not above `number`; 1 for less."""
    return 1 << max(0, number.bit_length() - 1)


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
    panels, exact, lost = HeldPanels(layout, tensor), SquaredNorm(), SquaredNorm()
    for i, rows in enumerate(v.blocks()):
        chat, base = (weight.rows(rows.start, rows.stop) for weight in (v.chat, v.base))
        block = _subtracted(chat.to(dtype), base.to(dtype), panels, rows, scratch)
        if i % MEASURED_BLOCKS == 0:
            _measure_rounding(chat, base, block, scratch, exact, lost)
    rounding = math.sqrt(lost.value / exact.value) if exact.value > 0 else 0.0
    return Held(panels, rounding)


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


def _subtracted(
    chat: Tensor, base: Tensor, panels: HeldPanels, rows: slice, scratch: Scratch
) -> Tensor:
    """Stored rows of `V`, which are among the panels then. Where they lie there in runs of a
    panel's width they are subtracted in a block of their own first: in runs it took up to three
    times as long."""
    if panels.layout.by_columns:
        return torch.sub(chat, base, out=panels.tensor.view(-1, panels.layout.d_out)[rows])
    block = torch.sub(chat, base, out=scratch.take("block", tuple(chat.shape), chat.dtype))
    _spread(block, panels.layout, panels.tensor[:, rows])
    return block


def _spread(block: Tensor, layout: PanelLayout, places: Tensor) -> None:
    """Copy rows into their `places` `(panels, rows, width)`, a panel's columns to each."""
    whole = layout.d_in // layout.width
    cut = whole * layout.width
    runs = torch.unflatten(block[:, :cut], 1, (whole, layout.width))
    places[:whole] = runs.transpose(0, 1)
    if cut < layout.d_in:
        places[whole, :, : layout.d_in - cut] = block[:, cut:]


def _measure_rounding(
    chat: Tensor,
    base: Tensor,
    kept: Tensor,
    scratch: Scratch,
    exact: SquaredNorm,
    lost: SquaredNorm,
) -> None:
    """Add `||V||_F^2` and `||V - kept||_F^2`, taken in a dtype that holds the difference."""
    wide = torch.float32 if kept.dtype.itemsize == 2 else torch.float64
    v, other = (scratch.take(name, tuple(chat.shape), wide) for name in ("wide", "other"))
    v.copy_(chat).sub_(other.copy_(base))
    exact.add(v)
    lost.add(v.sub_(other.copy_(kept)))
