"""The choice among all kinds of jobs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_wrap_validator_function

from app.api.job_schemas import JobIn
from app.api.measure_jobs import EvaluateIn, FrontierIn
from app.api.salora_jobs import ExportIn, InitIn, SafetyModuleIn, TrainIn
from app.api.schemas import RequestBody
from app.domain.job import JobKind, MeasureKind, PatchKind, SaloraKind

BODIES: Mapping[JobKind, type[RequestBody]] = {
    "safety_module": SafetyModuleIn,
    "salora_init": InitIn,
    "salora_train": TrainIn,
    "salora_export": ExportIn,
    "evaluate": EvaluateIn,
    "frontier": FrontierIn,
}


class _Kind(BaseModel):
    """The field that tells what the rest must be."""

    kind: Literal[PatchKind, SaloraKind, MeasureKind] = get_args(PatchKind)[0]


def _by_kind(value: Any, _: object) -> RequestBody:
    """Checked as the kind that it names, so that what is wrong is told of that kind alone."""
    kind = _Kind.model_validate(value).kind
    return BODIES.get(kind, JobIn).model_validate(value)


class _ByKind:
    """An annotation of a union of bodies: described as one that `kind` discriminates, with `patch`
    where it is left out, which a discriminator of pydantic's own cannot do."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        tagged = handler.generate_schema(Annotated[source, Discriminator("kind")])
        return no_info_wrap_validator_function(_by_kind, tagged)


AnyJobIn = Annotated[
    JobIn | SafetyModuleIn | InitIn | TrainIn | ExportIn | EvaluateIn | FrontierIn, _ByKind()
]
