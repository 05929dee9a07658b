"""`V` kept in an accelerator's memory from job to job, and applied there.

What comes back from the device is the product, of the adapter's size; `V` goes there once. Sums are
IEEE float32 (TF32 keeps 10 bits of a product's factors, and is off).
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.approximate import scaled
from app.alignment.difference import work_dtype
from app.alignment.panels import PanelLayout
from app.alignment.projection import Applied

CHUNK_BYTES = 256 << 20  # of V, widened at once: next to nothing on a device that holds models


@dataclass(frozen=True)
class DeviceV:
    """One module's `V` on a device."""

    layout: PanelLayout
    panels: Tensor  # layout.shape, in the dtype that it is kept in
    norm: float  # ||V||_F

    def apply(self, columns: Tensor) -> Applied:
        """`V V^T B / ||V||_F` for `columns` `(d_out, n)` in the CPU's memory; there as well."""
        dtype = work_dtype(self.panels.dtype)
        b_t = columns.to(self.panels.device, dtype).T.contiguous()
        product = torch.zeros_like(b_t)
        for chunk in torch.split(self.panels, self._panels_at_once(dtype)):
            v = self.layout.columns(chunk.to(dtype))  # (m, d_out, width)
            t = b_t @ v  # (m, n, width)
            product += (t @ v.transpose(1, 2)).sum(0)
        return Applied(scaled(product.T.cpu(), self.norm), self.norm, source="memory")

    def _panels_at_once(self, dtype: torch.dtype) -> int:
        panel_bytes = self.layout.d_out * self.layout.width * dtype.itemsize
        return max(1, CHUNK_BYTES // panel_bytes)


class DeviceCache:
    """The `V`s that were used last, as many as fit into `limit_bytes`. Of one process."""

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device, self._limit, self.size_bytes = device, limit_bytes, 0
        self._kept: OrderedDict[Hashable, DeviceV] = OrderedDict()

    def find(self, key: Hashable) -> DeviceV | None:
        found = self._kept.get(key)
        if found:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Hashable, layout: PanelLayout, panels: Tensor, norm: float) -> None:
        """Copy the panels there, in the place of those that were used the longest ago."""
        if panels.nbytes > self._limit or key in self._kept:
            return
        while self.size_bytes + panels.nbytes > self._limit:
            self.size_bytes -= self._kept.popitem(last=False)[1].panels.nbytes
        self._kept[key] = DeviceV(layout, panels.to(self._device, copy=True), norm)
        self.size_bytes += panels.nbytes
