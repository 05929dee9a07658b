"""LoRA on parameters: what the shapes and the names of a file may say."""

import pytest

from app.domain.adapter import TensorEntry
from app.domain.errors import AdapterSafetyError, ConfigRefused, TensorRefused, UnsupportedAdapter
from app.intake.parameters import MAX_EXPERTS, depths_of, experts, wrapped

MLP = "model.layers.0.mlp"
BOTH = ("gate_up_proj", "down_proj")


def factor(side: str, *shape: int) -> TensorEntry:
    return TensorEntry(
        f"{MLP}.experts.lora_{side}.weight", "F32", shape, 0, 4 * shape[0] * shape[1]
    )


def test_each_expert_has_rows_of_a_and_columns_of_b() -> None:
    found = list(experts(factor("A", 6, 5), factor("B", 7, 6), rank=2))
    assert [(a.shape, b.shape) for a, b in found] == [((2, 5), (7, 2))] * 3
    assert [a.part.index for a, _ in found if a.part] == [0, 1, 2]
    assert {(a.whole.shape, b.whole.shape) for a, b in found} == {((6, 5), (7, 6))}
    assert found[2][1].label.endswith("lora_B.weight, expert 2")


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        ((7, 5), (7, 7), r"lora_A.*7 rows are not a multiple of the rank 2"),
        ((0, 5), (7, 0), r"lora_A.*0 rows"),
        ((6, 5), (7, 4), r"lora_B.*4 columns, lora_A has 6 rows"),
        ((10**9, 0), (0, 10**9), rf"lora_A.*over the limit of {MAX_EXPERTS}"),
    ],
    ids=["rows", "no rows", "columns", "a billion experts"],
)
def test_factors_that_are_no_whole_number_of_experts_are_refused(
    a: tuple[int, int], b: tuple[int, int], named: str
) -> None:
    with pytest.raises(TensorRefused, match=named):
        list(experts(factor("A", *a), factor("B", *b), rank=2))


def test_the_parameter_that_the_model_defines_first_is_the_inner_one() -> None:
    names = [f"{MLP}.experts", f"{MLP}.experts.base_layer", f"{MLP}.gate", f"{MLP}.down_proj"]
    depths = depths_of(dict.fromkeys(names))
    found = [wrapped(name, name, depths, (*BOTH, "gate.weight")) for name in names]
    assert [(each.parameter, each.module, each.has_experts) for each in found] == [
        (f"{MLP}.experts.down_proj", f"{MLP}.experts.down_proj", True),
        (f"{MLP}.experts.gate_up_proj", f"{MLP}.experts.gate_up_proj", True),
        (f"{MLP}.gate.weight", f"{MLP}.gate", False),
        (f"{MLP}.down_proj", f"{MLP}.down_proj", False),
    ]


@pytest.mark.parametrize(
    ("name", "targets", "error"),
    [
        (f"{MLP}.experts", BOTH, ConfigRefused),
        (f"{MLP}.experts" + ".base_layer" * 9, BOTH, ConfigRefused),
        (f"{MLP}.up_proj.base_layer", BOTH, UnsupportedAdapter),
        (f"{MLP}.experts.down_proj.3", (), UnsupportedAdapter),
    ],
)
def test_a_name_that_the_configuration_does_not_explain_is_refused(
    name: str, targets: tuple[str, ...], error: type[AdapterSafetyError]
) -> None:
    with pytest.raises(error, match=r"model\.layers\.0\.mlp"):
        wrapped(name, name, depths_of({name: None}), targets)
