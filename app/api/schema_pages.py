"""/v1/schemas: the JSON Schemas that reports follow."""

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from app.domain.alignment import AlignmentReport
from app.domain.measured import EvaluationReport, FrontierReport
from app.domain.report import Report
from app.domain.salora_report import SaloraReport

router = APIRouter(prefix="/v1/schemas", tags=["schemas"])

DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


@router.get("/report")
def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a patch's or score's report."""
    return {**DIALECT, **TypeAdapter(Report).json_schema(mode="serialization")}


@router.get("/alignment")
def alignment_schema() -> dict[str, Any]:
    """The JSON Schema of an alignment's report."""
    return {**DIALECT, **TypeAdapter(AlignmentReport).json_schema(mode="serialization")}


@router.get("/salora")
def salora_schema() -> dict[str, Any]:
    """The JSON Schema of the reports of SaLoRA's jobs."""
    return {**DIALECT, **TypeAdapter(SaloraReport).json_schema(mode="serialization")}


@router.get("/evaluation")
def evaluation_schema() -> dict[str, Any]:
    """The JSON Schema of an evaluation's report."""
    return {**DIALECT, **TypeAdapter(EvaluationReport).json_schema(mode="serialization")}


@router.get("/frontier")
def frontier_schema() -> dict[str, Any]:
    """The JSON Schema of a frontier's report."""
    return {**DIALECT, **TypeAdapter(FrontierReport).json_schema(mode="serialization")}
