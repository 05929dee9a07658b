"""Products of bfloat16 matrices summed in float32, by a processor's own units for them (AMX).

torch multiplies bfloat16 matrices on these units but rounds what it returns to bfloat16, which
would cost 2^-9 of every element. MKL, which torch's x86-64 builds carry inside, has the product
with a float32 result (oneMKL's C interface, `cblas_gemm_bf16bf16f32`); it is called there, and uses
torch's threads. Where the processor, the build or the function is another, `bf16_gemm` is None and
torch computes everything in float32.

A product of two bfloat16 numbers is exact in float32, so with a float32 matrix cut into three
bfloat16 parts (8 bits of mantissa each, 24 in all) the result is as good as float32's own.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

PARTS = 3  # of a float32 number
GOOD = 1e-6  # relative error of the trial product; float32 gives 1e-7, one bfloat16 part 2e-3
ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # CBLAS's own numbers


class Gemm(Protocol):
    """`out = a @ b`, or `out += a @ b` with `add`.

    `a` `(m, k)` and `b` `(k, n)` are bfloat16, each with one stride of 1; `out` `(m, n)` is float32
    with contiguous rows. All are in the CPU's memory, and none is empty.
    """

    def __call__(self, a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None: ...


@cache
def bf16_gemm() -> Gemm | None:
    """The product of this processor and this torch; None where there is none, or a wrong one."""
    if not _has_units():
        return None
    found = _of_mkl()
    if found is None or not _is_right(found):
        logger.warning("this processor has AMX, but torch brings no usable product for it")
        return None
    return found


def parts(x: Tensor) -> Tensor:
    """`x` `(k, n)` float32 as bfloat16 `(k, PARTS n)`, part after part; `x` is their sum.

    The units take a number below 2^-126 as zero, so `x` should not be far from 1.
    """
    first = x.bfloat16()
    left = x - first
    second = left.bfloat16()
    return torch.cat([first, second, left.sub_(second).bfloat16()], dim=1)


def joined(product: Tensor) -> Tensor:
    """The product `(m, PARTS n)` of something with parts, as `(m, n)`."""
    return product.view(len(product), PARTS, -1).sum(1)


# ------------------------------------------------------------------------------------ the function
def _has_units() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # older torch does not say
    return bool(ask and ask().get("amx_bf16", False))


def _of_mkl() -> Gemm | None:
    function = getattr(_library(), "cblas_gemm_bf16bf16f32", None)
    if function is None:
        return None
    number, pointer, factor = ctypes.c_int, ctypes.c_void_p, ctypes.c_float
    matrix = [pointer, number]
    function.argtypes = [*[number] * 6, factor, *matrix, *matrix, factor, *matrix]
    function.restype = None

    def gemm(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
        sizes = (a.shape[0], b.shape[1], a.shape[1])
        function(ROW_MAJOR, _order(a), _order(b), *sizes, 1.0, *_matrix(a), *_matrix(b),
                 float(add), *_matrix(out))  # fmt: skip

    return gemm


def _library() -> ctypes.CDLL | None:
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        try:
            return ctypes.CDLL(str(path))  # which is loaded already
        except OSError:
            continue
    return None


def _order(matrix: Tensor) -> int:
    return PLAIN if matrix.stride(1) == 1 else TRANSPOSED


def _matrix(matrix: Tensor) -> tuple[int, int]:
    """Where it is, and CBLAS's leading dimension; a single row or column may have any stride."""
    (row, column), (rows, columns) = matrix.stride(), matrix.shape
    return matrix.data_ptr(), max(row, columns) if column == 1 else max(column, rows)


def _is_right(gemm: Gemm) -> bool:
    """A small product with each way to lie in memory, against float64's."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(48, 80, generator=generator).bfloat16()
    x = torch.randn(80, 5, generator=generator)
    expected, cut = a.double() @ x.double(), parts(x)
    for left, right in ((a, cut), (a.T.contiguous().T, cut), (a, cut.T.contiguous().T)):
        out = torch.zeros(48, PARTS * 5)
        gemm(left, right, out, add=True)
        error = torch.linalg.norm(joined(out) - expected)
        if not error < GOOD * torch.linalg.norm(expected):
            return False
    return True
