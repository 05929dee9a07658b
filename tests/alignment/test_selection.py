import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alignment.selection import select
from app.domain.errors import InvalidField
from app.domain.method import Method, Selection
from tests.alignment import reference

cosine_lists = st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.3, 0.3, 0.5, 0.9, 1.0]), max_size=40)
selections = st.one_of(
    st.builds(Selection, st.just("threshold"), st.floats(-1, 1)),
    st.builds(Selection, st.just("count"), st.integers(0, 50)),
    st.builds(Selection, st.just("fraction"), st.integers(0, 100).map(lambda n: n / 100)),
    st.just(Selection("all", None)),
)


@given(cosine_lists, selections)
def test_every_selection_agrees_with_its_definition(
    cosines: list[float], selection: Selection
) -> None:
    assert select(cosines, selection) == reference.selected(cosines, selection)


@given(cosine_lists, st.integers(0, 50))
def test_count_takes_exactly_that_many(cosines: list[float], count: int) -> None:
    assert len(select(cosines, Selection("count", count))) == min(count, len(cosines))


@given(cosine_lists, st.integers(0, 49))
def test_a_larger_count_contains_the_smaller(cosines: list[float], count: int) -> None:
    assert select(cosines, Selection("count", count)) <= select(
        cosines, Selection("count", count + 1)
    )


def test_ties_break_by_module_order() -> None:
    assert select([0.5, 0.3, 0.3, 0.3], Selection("count", 2)) == {1, 2}


def test_the_threshold_itself_is_projected() -> None:
    assert select([0.5, 0.5000001], Selection("threshold", 0.5)) == {0}


@pytest.mark.parametrize(
    ("share", "modules", "expected"), [(0.1, 30, 3), (0.1, 31, 4), (0.07, 100, 7)]
)
def test_a_fraction_is_at_least_the_share_and_decimal(
    share: float, modules: int, expected: int
) -> None:
    assert len(select([0.1] * modules, Selection("fraction", share))) == expected


@pytest.mark.parametrize(
    ("by", "value", "field"),
    [
        ("nearest", 1, "select.by"),
        ("threshold", None, "select.value"),
        ("threshold", 1.5, "select.value"),
        ("threshold", float("nan"), "select.value"),
        ("count", -1, "select.value"),
        ("count", 2.5, "select.value"),
        ("fraction", 1.1, "select.value"),
        ("fraction", True, "select.value"),
        ("all", 3, "select.value"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(by: str, value: object, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        Selection(by, value)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"projector": "orthogonal"}, "projector"),
        ({"projector": "subspace", "energy": 0.0}, "energy"),
        ({"projector": "subspace", "energy": 1.01}, "energy"),
        ({"projector": "subspace", "energy": 0.5, "rank": 4}, "rank"),
        ({"projector": "complement", "rank": 0}, "rank"),
        ({"projector": "approximate", "rank": 4}, "rank"),
    ],
)
def test_a_method_that_means_nothing_is_refused(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        Method(**fields)
    assert caught.value.facts["field"] == field
