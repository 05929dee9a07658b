"""/v1/schemas: the JSON Schema that every report follows."""

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from app.domain.report import Report

router = APIRouter(prefix="/v1/schemas", tags=["schemas"])


@router.get("/report")
def report_schema() -> dict[str, Any]:
    """The report's JSON Schema (draft 2020-12)."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **TypeAdapter(Report).json_schema(mode="serialization")}
