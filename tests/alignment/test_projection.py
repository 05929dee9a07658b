import itertools

import pytest
import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate
from app.alignment.blocks import Scratch, torch_threads
from app.alignment.difference import BLOCK_ELEMENTS, Difference, SquaredNorm, TensorWeight
from app.alignment.lora import LoraPair
from app.alignment.projection import (
    IDENTITY,
    ZERO_ALIGNMENT,
    ZERO_UPDATE,
    Applied,
    DifferenceNotFinite,
    Projected,
    Skipped,
    project,
)
from app.domain.method import Method, Projection
from tests.alignment import reference

METHODS = [
    Method("approximate"),
    Method("exact"),
    Method("subspace"),
    Method("subspace", energy=0.5),
    Method("subspace", energy=1.0),
    Method("subspace", rank=3),
    Method("complement"),
    Method("complement", rank=5),
]
# d_out == r and d_in == r are among them, and so are tall, wide and square.
SHAPES = [(64, 64), (96, 40), (40, 96), (8, 48), (48, 8), (1, 16), (16, 1)]
COSINE_TOLERANCE = 1e-6
B_TOLERANCE = 1e-5  # relative, in float32


def weights(
    d_out: int,
    d_in: int,
    dtype: torch.dtype = torch.float32,
    rank: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """(chat, base): the chat model a few percent away, by a change of full or of the given rank."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(d_out, d_in, generator=generator) * 0.02
    inner = rank or min(d_out, d_in)
    change = torch.randn(d_out, inner, generator=generator) @ torch.randn(
        inner, d_in, generator=generator
    )
    return (base + change * 0.002 / inner**0.5).to(dtype), base.to(dtype)


def pair(d_out: int, d_in: int, r: int = 8, dtype: torch.dtype = torch.float32) -> LoraPair:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(r, d_in, generator=generator)
    b = torch.randn(d_out, r, generator=generator) * 0.01
    return LoraPair(a.to(dtype), b.to(dtype), scaling=2.0)


def difference(chat: Tensor, base: Tensor, *, transposed: bool = False) -> Difference:
    stored = [t.T.contiguous() if transposed else t for t in (chat, base)]
    return Difference(*(TensorWeight("w", t) for t in stored), transposed)


def projected(lora: LoraPair, v: Difference, method: Method) -> Projected:
    found = project(lora, v, method)
    assert isinstance(found, Projected)
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    norm = torch.linalg.vector_norm
    return float(norm(found.double() - expected) / norm(expected).clamp_min(1e-300))


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_projector_agrees_with_the_dense_reference(
    method: Method, shape: tuple[int, int], transposed: bool
) -> None:
    chat, base = weights(*shape)
    lora = pair(*shape)
    c = reference.projector(chat, base, method)
    found = projected(lora, difference(chat, base, transposed=transposed), method)
    expected = c @ lora.b.double()
    if torch.linalg.vector_norm(expected) > 1e-6 * torch.linalg.vector_norm(lora.b):
        assert relative_error(found.c_b, expected) < B_TOLERANCE
        assert found.measures.cosine == pytest.approx(
            reference.cosine(c, lora.a, lora.b), abs=COSINE_TOLERANCE
        )
    else:  # the complement of everything: what is left is rounding
        assert torch.linalg.vector_norm(found.c_b) < 1e-6 * torch.linalg.vector_norm(lora.b)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_measure_agrees_with_the_dense_reference(method: Method) -> None:
    chat, base = weights(96, 40)
    lora = pair(96, 40)
    v = chat.double() - base.double()
    c = reference.projector(chat, base, method)
    update = 2.0 * lora.b.double() @ lora.a.double()
    norm = torch.linalg.matrix_norm
    found = projected(lora, difference(chat, base), method)
    assert found.alignment_norm == pytest.approx(float(norm(v)), rel=1e-7)
    assert found.measures.update_norm == pytest.approx(float(norm(update)), rel=1e-12)
    assert found.measures.retained_energy == pytest.approx(
        float(norm(c @ update) / norm(update)), rel=1e-6
    )
    distance = float(norm(lora.b.double() - c @ lora.b.double()))
    assert found.measures.pdst_kept == pytest.approx(1 / (1 + distance), rel=1e-6)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    ("chat_dtype", "base_dtype"), list(itertools.product(DTYPES, DTYPES)), ids=str
)
def test_any_mix_of_checkpoint_dtypes_agrees_with_the_reference(
    chat_dtype: torch.dtype, base_dtype: torch.dtype
) -> None:
    chat, base = weights(64, 32)
    chat, base = chat.to(chat_dtype), base.to(base_dtype)
    lora = pair(64, 32)
    for method in (Method("approximate"), Method("subspace")):
        c = reference.projector(chat, base, method)
        found = projected(lora, difference(chat, base), method)
        assert relative_error(found.c_b, c @ lora.b.double()) < B_TOLERANCE


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_weight_of_many_blocks_agrees_with_the_reference_on_any_number_of_threads(
    threads: int, transposed: bool
) -> None:
    shape = (5003, 701)  # which no block and no panel divides
    assert shape[0] * shape[1] > 6 * BLOCK_ELEMENTS
    chat, base = weights(*shape, torch.bfloat16)
    lora = pair(*shape)
    c = reference.projector(chat, base, Method())
    with torch_threads(threads):
        found = projected(lora, difference(chat, base, transposed=transposed), Method())
    assert relative_error(found.c_b, c @ lora.b.double()) < B_TOLERANCE
    assert found.measures.cosine == pytest.approx(
        reference.cosine(c, lora.a, lora.b), abs=COSINE_TOLERANCE
    )


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_the_same_input_gives_the_same_bits_again(transposed: bool) -> None:
    v = difference(*weights(1031, 1500, torch.bfloat16), transposed=transposed)
    b, scratch = pair(1031, 1500).b, Scratch()
    c_b, norm = apply_approximate(v, b, scratch)
    again, same = apply_approximate(v, b, scratch)  # the scratch memory is not fresh any more
    assert torch.equal(again, c_b)
    assert same == norm


def test_adapters_side_by_side_get_what_each_gets_alone() -> None:
    chat, base = weights(96, 40)
    v = difference(chat, base)
    b = pair(96, 40, r=24).b
    together, _ = apply_approximate(v, b, Scratch())
    alone = [apply_approximate(v, part, Scratch())[0] for part in b.split(8, dim=1)]
    assert relative_error(together, torch.cat(alone, dim=1).double()) < 1e-6


@pytest.mark.parametrize("shape", [(64, 64), (40, 96)], ids=str)
def test_the_exact_projector_is_the_identity_for_full_row_rank_and_says_so(
    shape: tuple[int, int],
) -> None:
    found = projected(pair(*shape), difference(*weights(*shape)), Method("exact"))
    assert torch.equal(found.c_b, pair(*shape).b.double())
    assert found.measures.cosine == pytest.approx(1.0)
    assert found.note.endswith(IDENTITY)


@pytest.mark.parametrize("shape", [(64, 64), (40, 96), (96, 40)], ids=str)
def test_the_exact_projector_finds_the_rank_of_a_rank_deficient_difference(
    shape: tuple[int, int],
) -> None:
    # In float64, because rounding the sum to float32 would make the difference full rank again.
    base = torch.zeros(shape, dtype=torch.float64)
    chat, _ = weights(*shape, rank=5)
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(shape[0], 5, generator=generator, dtype=torch.float64)
    chat = left @ torch.randn(5, shape[1], generator=generator, dtype=torch.float64)
    lora = pair(*shape)
    found = projected(lora, difference(chat, base), Method("exact"))
    c = reference.projector(chat, base, Method("exact"))
    assert torch.linalg.matrix_rank(c) == 5
    assert relative_error(found.c_b, c @ lora.b.double()) < B_TOLERANCE
    assert found.note == ""


def test_subspace_and_complement_split_the_update_in_two() -> None:
    lora, v = pair(64, 64), difference(*weights(64, 64))
    inside = projected(lora, v, Method("subspace")).c_b
    outside = projected(lora, v, Method("complement")).c_b
    assert relative_error(inside + outside, lora.b.double()) < 1e-12


def test_an_empty_complement_leaves_nothing_and_no_noise() -> None:
    found = projected(pair(16, 24), difference(*weights(16, 24)), Method("complement", energy=1.0))
    assert torch.count_nonzero(found.c_b) == 0
    assert (found.measures.cosine, found.measures.retained_energy) == (0.0, 0.0)


def test_a_subspace_of_every_direction_says_that_it_is_the_identity() -> None:
    method = Method("subspace", rank=300)
    found = projected(pair(16, 24), difference(*weights(16, 24)), method)
    assert torch.equal(found.c_b, pair(16, 24).b.double())
    assert found.note.endswith(IDENTITY)


def test_models_whose_shapes_differ_are_never_subtracted() -> None:
    with pytest.raises(ValueError, match="against"):
        difference(torch.zeros(4, 6), torch.zeros(6, 4))


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_factors_of_any_size_have_the_same_cosine(scale: float) -> None:
    lora, v = pair(64, 32), difference(*weights(64, 32))
    scaled = LoraPair(lora.a * scale, lora.b * scale, lora.scaling)
    for method in (Method(), Method("complement")):
        expected = projected(lora, v, method).measures
        found = projected(scaled, v, method).measures
        assert found.cosine == pytest.approx(expected.cosine, abs=1e-5)
        assert found.retained_energy == pytest.approx(expected.retained_energy, rel=1e-5)


def test_a_zero_difference_is_skipped_with_its_reason() -> None:
    _, base = weights(64, 32)
    for method in METHODS:
        found = project(pair(64, 32), difference(base, base), method)
        assert isinstance(found, Skipped)
        assert found.reason == ZERO_ALIGNMENT
        assert found.alignment_norm == 0


def test_a_zero_update_is_skipped_with_its_reason() -> None:
    lora = pair(64, 32)
    untrained = LoraPair(lora.a, torch.zeros_like(lora.b), 1.0)
    for method in METHODS:
        found = project(untrained, difference(*weights(64, 32)), method)
        assert isinstance(found, Skipped)
        assert found.reason == ZERO_UPDATE


def test_an_update_that_projects_to_nothing_has_cosine_zero() -> None:
    chat, base = torch.zeros(6, 4), torch.zeros(6, 4)
    chat[:2] = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    b = torch.zeros(6, 2)
    b[4:] = 1.0
    found = projected(LoraPair(torch.eye(2, 4), b, 1.0), difference(chat, base), Method())
    assert (found.measures.cosine, found.measures.retained_energy) == (0.0, 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["chat", "base"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_difference_that_is_not_finite_is_refused(
    method: Method, where: str, value: float
) -> None:
    chat, base = weights(64, 32)
    (chat if where == "chat" else base)[13, 7] = value
    with pytest.raises(DifferenceNotFinite):
        project(pair(64, 32), difference(chat, base), method)


def test_half_precision_adapters_are_projected_in_float32() -> None:
    chat, base = weights(64, 32, torch.bfloat16)
    for dtype in (torch.float16, torch.bfloat16):
        lora = pair(64, 32, dtype=dtype)
        c = reference.projector(chat, base, Method())
        found = projected(lora, difference(chat, base), Method())
        assert found.c_b.dtype == torch.float32
        assert relative_error(found.c_b, c @ lora.b.double()) < B_TOLERANCE


def test_the_norm_of_a_large_block_keeps_eight_digits() -> None:
    block = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)) * 0.002
    squared = SquaredNorm()
    assert squared.value == 0
    squared.add(block)
    squared.add(block[0, :5])  # shorter than one run
    exact = float(block.double().square().sum() + block[0, :5].double().square().sum())
    assert squared.value == pytest.approx(exact, rel=1e-8)


def test_modules_that_a_projector_leaves_alone_are_a_true_tie() -> None:
    for seed in range(20):
        chat, base = weights(24, 32, seed=seed)
        found = projected(pair(24, 32), difference(chat, base), Method("exact"))
        assert found.measures.cosine == 1.0


def test_a_projector_is_no_identity_where_v_has_fewer_rows_than_the_columns() -> None:
    whole = Applied(torch.ones(4, 2), 1.0, "V has full row rank: an identity")
    exact = Projection("exact", None, None)
    assert whole.beyond(torch.ones(4, 2), exact).note == whole.note
    longer = whole.beyond(torch.ones(6, 2), exact)
    assert longer.note == ""
    assert torch.equal(longer.product, torch.cat([torch.ones(4, 2), torch.zeros(2, 2)]))
