"""What a job was asked for, as it was asked, with its defaults resolved."""

from dataclasses import asdict
from typing import Any

from app.domain.evaluation import FrontierRecipe, GateRecipe, MeasureRecipe
from app.domain.job import AnyRecipe
from app.domain.method import DEFAULT_ENERGY, SUBSPACE_PROJECTORS
from app.domain.salora import InitRecipe

REQUIRE = "no_worse"
"""Of a patch with a gate: safety and utility, and the only thing that can be required."""


def recipe_out(recipe: AnyRecipe | None) -> dict[str, Any] | None:
    """Flat, as in the body of the request."""
    if recipe is None:
        return None
    if isinstance(recipe, MeasureRecipe):
        return _measuring(recipe)
    fields = asdict(recipe)
    fields |= fields.pop("encoding", {})
    if isinstance(recipe, InitRecipe):
        fields["alpha"] = recipe.resolved_alpha
    return fields


def _measuring(recipe: MeasureRecipe) -> dict[str, Any]:
    fields = asdict(recipe)
    judging = fields.pop("judging")
    judging |= {"judge": judging.pop("safety"), **judging.pop("encoding")}
    asked = {**fields.pop("sets"), **fields, **judging}
    if isinstance(recipe, FrontierRecipe):
        asked |= _resolved(recipe)
    return {"require": REQUIRE, "gate": asked} if isinstance(recipe, GateRecipe) else asked


def _resolved(recipe: FrontierRecipe) -> dict[str, Any]:
    takes_energy = any(family in SUBSPACE_PROJECTORS for family in recipe.families)
    unset = recipe.energy is None and takes_energy
    return {
        "held_out": asdict(recipe.held_out) if recipe.held_out.by_role else None,
        "energy": DEFAULT_ENERGY if unset else recipe.energy,
    }
