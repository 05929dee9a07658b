"""`V`, or `V V^T`, kept in an accelerator's memory from job to job, and applied there.

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
from app.alignment.gram import apply_gram
from app.alignment.panels import PanelLayout
from app.alignment.projection import Applied

CHUNK_BYTES = 256 << 20  # of V, widened at once: next to nothing on a device that holds models


@dataclass(frozen=True)
class DeviceV:
    """One module's `V` on a device."""

    layout: PanelLayout
    panels: Tensor  # layout.shape, in the dtype that it is kept in
    norm: float  # ||V||_F

    @property
    def size_bytes(self) -> int:
        return self.panels.nbytes

    def copied(self, device: torch.device) -> "DeviceV":
        return DeviceV(self.layout, self.panels.to(device, copy=True), self.norm)

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


@dataclass(frozen=True)
class DeviceGram:
    """One module's `V V^T` on a device."""

    tiles: Tensor  # Tiling.shape, float32
    norm: float  # ||V||_F

    @property
    def size_bytes(self) -> int:
        return self.tiles.nbytes

    def copied(self, device: torch.device) -> "DeviceGram":
        return DeviceGram(self.tiles.to(device, copy=True), self.norm)

    def apply(self, columns: Tensor) -> Applied:
        """As `DeviceV.apply`."""
        product = apply_gram(self.tiles, columns.to(self.tiles.device, torch.float32))
        return Applied(scaled(product.cpu(), self.norm), self.norm, source="memory")


class DeviceCache:
    """The alignments that were used last, as many as fit into `limit_bytes`. Of one process."""

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device, self._limit, self.size_bytes = device, limit_bytes, 0
        self._kept: OrderedDict[Hashable, DeviceV | DeviceGram] = OrderedDict()

    def find(self, key: Hashable) -> DeviceV | DeviceGram | None:
        found = self._kept.get(key)
        if found:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Hashable, given: DeviceV | DeviceGram) -> None:
        """Copy it there, in the place of those that were used the longest ago."""
        if given.size_bytes > self._limit or key in self._kept:
            return
        while self.size_bytes + given.size_bytes > self._limit:
            self.size_bytes -= self._kept.popitem(last=False)[1].size_bytes
        self._kept[key] = given.copied(self._device)
        self.size_bytes += given.size_bytes
