"""A stand-in for a processor's bfloat16 units, so that what is built on them is tested anywhere."""

import pytest
from torch import Tensor

from app.alignment import matrix_units


def gemm(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    product = a.float() @ b.float()  # exact products, sums in float32
    out.copy_(out + product if add else product)


def use(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 of `torch` or `numpy`, a `stand-in` for units, or the `processor`'s own, where it
    has some."""
    if how == "processor" and matrix_units.bf16_gemm() is None:
        pytest.skip("this processor, or this torch, has no bfloat16 units to use")
    if how != "processor":
        found = gemm if how == "stand-in" else None
        monkeypatch.setattr("app.alignment.matrix_units.bf16_gemm", lambda: found)
    monkeypatch.setattr("app.alignment.numpy_products.chosen", lambda: how == "numpy")


WAYS = ["torch", "numpy", "stand-in", "processor"]
