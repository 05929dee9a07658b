"""What measuring jobs were asked for, from its JSON."""

from collections.abc import Mapping
from typing import Any

from app.domain.evaluation import (
    Budget,
    Constraints,
    EvaluateRecipe,
    FrontierRecipe,
    GateRecipe,
    Judging,
    MeasureRecipe,
    Sets,
    Subject,
)
from app.domain.job import JobKind
from app.domain.salora import Encoding

RECIPES: Mapping[JobKind, type[MeasureRecipe]] = {
    "evaluate": EvaluateRecipe,
    "frontier": FrontierRecipe,
    "patch": GateRecipe,
}


def to_measure_recipe(kind: JobKind, value: Mapping[str, Any]) -> MeasureRecipe:
    """The recipe as it was before `asdict`."""
    fields = dict(value)
    for name, made in (("sets", Sets), ("held_out", Sets), ("constraints", Constraints)):
        if name in fields:
            fields[name] = made(**fields[name])
    if "budget" in fields:
        fields["budget"] = Budget(**fields["budget"])
    if "adapters" in fields:
        fields["adapters"] = tuple(Subject(**subject) for subject in fields["adapters"])
    if "families" in fields:
        fields["families"] = tuple(fields["families"])
    return RECIPES[kind](**{**fields, "judging": _judging(fields["judging"])})


def _judging(value: Mapping[str, Any]) -> Judging:
    return Judging(**{**value, "encoding": Encoding(**value["encoding"])})
