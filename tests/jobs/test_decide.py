"""Decisions from a stored report: the same as a job's, through JSON and back."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.method import Method, Selection
from app.domain.report import (
    AdapterReference,
    LayerReport,
    ModelReference,
    Report,
    Serving,
    Summary,
)
from app.jobs.decide import decided, from_json, method_of, method_reference, what_if
from app.jobs.render import FORMATS
from tests.jobs.measured_reports import evaluation

METHODS = [
    Method(),
    Method("subspace", energy=0.7, select=Selection("count", 2)),
    Method("complement", rank=3, select=Selection("all", None)),
    Method(name="scale", factor=0.5, select=Selection("fraction", 0.5)),
    Method(name="prune"),
    Method(rescale="preserve_norm"),
    Method(name="salora", safety_module="5" * 64),
]


def layer(number: int, cosine: float | None) -> LayerReport:
    known = cosine is not None
    return LayerReport(
        module=f"model.layers.{number}.q_proj",
        layer=number,
        kind="q_proj",
        shape=(8, 4),
        rank=2,
        cosine=cosine,
        retained_energy=0.05 if known else None,
        update_norm=1.0,
        alignment_norm=2.0,
        pdst=None,
        pdst_if_selected=1.0 if known else None,
        pdst_if_kept=0.5 if known else None,
        rounding=0.0 if known else None,
        alignment=None if cosine is None else "computed",
        note="",
        decision="kept" if known else "skipped",
        reason="" if known else "the update is zero",
    )


def report(cosines: Sequence[float | None], method: Method) -> Report:
    model = ModelReference("org/chat", None, "d" * 64)
    undecided = Report(
        adapter=AdapterReference("a" * 64, "org/chat", ("hello",)),
        base_model=model if method.needs_base else None,
        chat_model=model,
        method=method_reference(method),
        summary=Summary(0, 0, 0, 0, None, None, None, None),
        layers=[layer(i, cosine) for i, cosine in enumerate(cosines)],
        unscreened=[],
        warnings=[],
        versions={},
        serving=[Serving("vLLM", "setting", ["rank"], "its source", "2026-11-21")],
    )
    return decided(undecided, method)


cosines = st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=12)
selections = st.one_of(
    st.builds(Selection, st.just("threshold"), st.floats(-1, 1)),
    st.builds(Selection, st.just("count"), st.integers(0, 15)),
    st.builds(Selection, st.just("fraction"), st.floats(0, 1)),
    st.just(Selection("all", None)),
)


@given(cosines, selections, selections)
def test_deciding_anew_gives_what_the_job_would_have_given(
    values: list[float | None], first: Selection, second: Selection
) -> None:
    stored = json.loads(json.dumps(report(values, Method(select=first)).as_json()))
    expected = report(values, Method(select=second)).as_json()
    assert what_if(stored, second).as_json() == {**expected, "what_if": True}


@given(cosines, selections)
def test_a_skipped_module_is_never_decided_otherwise(
    values: list[float | None], selection: Selection
) -> None:
    found = report(values, Method(select=selection))
    for value, one in zip(values, found.layers, strict=True):
        assert (one.decision == "skipped") == (value is None)
        if value is None:
            assert (one.pdst, one.reason) == (None, "the update is zero")
    summary = found.summary
    assert summary.projected + summary.kept + summary.skipped == summary.modules == len(values)
    assert any("not screened" in w for w in found.warnings) == (None in values)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_report_comes_back_from_its_json(method: Method) -> None:
    made = report([0.1, None, 0.9], method)
    assert from_json(json.loads(json.dumps(made.as_json()))).as_json() == made.as_json()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_method_comes_back_as_resolved(method: Method) -> None:
    again = method_of(method_reference(method))
    assert method_reference(again) == method_reference(method)


def test_a_safety_modules_report_names_it_and_no_base_model_in_every_form() -> None:
    method = Method(name="salora", safety_module="5" * 64)
    made = report([0.1, 0.9], method)
    again = what_if(made.as_json(), Selection("all", None))
    assert again.summary.projected == 2
    assert again.base_model is None
    assert (again.method.projector, again.method.safety_module) == (None, "5" * 64)
    for name in ("markdown", "html"):
        _, render = FORMATS[name]
        page = render(made.as_json())
        assert "5" * 64 in page
        assert "approximate" not in page
        assert "None" not in page


def test_what_a_gate_measured_comes_back_is_shown_and_goes_with_other_decisions() -> None:
    made = replace(report([0.1, 0.9], Method()), evaluation=evaluation().as_json())
    stored = json.loads(json.dumps(made.as_json()))
    assert json.loads(json.dumps(from_json(stored).as_json())) == stored
    assert what_if(stored, Selection("all", None)).evaluation is None
    for name in ("markdown", "html"):
        page = FORMATS[name][1](stored)
        assert "0.950 [0.895, 0.977]" in page
        assert "patched refuses more of the 120 harmful prompts" in page
        assert "Layer by layer" in page


def test_a_report_that_was_stored_before_gates_still_comes_in_every_form() -> None:
    stored = json.loads(json.dumps(report([0.1, None], Method()).as_json()))
    del stored["evaluation"]
    assert from_json(stored).evaluation is None
    for _, render in FORMATS.values():
        assert "easured before" not in render(stored)


def test_a_baselines_reason_says_what_was_done() -> None:
    scaled = report([0.1], Method(name="scale", factor=0.5)).layers[0]
    pruned = report([0.1], Method(name="prune")).layers[0]
    assert "scaled by 0.5" in scaled.reason
    assert "set to zero" in pruned.reason
    assert not any("in effect removed" in w for w in report([0.1], Method(name="prune")).warnings)
