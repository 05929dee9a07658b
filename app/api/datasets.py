"""/v1/datasets"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.api.access import ReadServices, SubmitServices
from app.api.dataset_uploads import JSON_LINES, PART, accept, received
from app.api.salora_schemas import DatasetOut, DatasetPage, dataset_path
from app.domain.dataset import Responses

router = APIRouter(prefix="/v1/datasets", tags=["salora"])

ROWS = """\
JSON lines: in each line `{"prompt": "...", "response": "..."}`, or `{"messages": [{"role": "user",
"content": "..."}, {"role": "assistant", "content": "..."}]}` with perhaps a system message first.
With `responses=optional` the response, or the assistant's last message, may be left out.
"""
BODY: dict[str, Any] = {"type": "string", "format": "binary", "description": ROWS}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": [PART], "properties": {PART: BODY}}
            },
            **{media: {"schema": BODY} for media in JSON_LINES},
        },
    }
}


@router.post("", status_code=201, openapi_extra=UPLOAD_BODY)
async def upload_dataset(
    request: Request,
    services: SubmitServices,
    response: Response,
    chat_model: Annotated[
        str | None,
        Query(max_length=200, description="count tokens by this model's tokenizer"),
    ] = None,
    responses: Annotated[
        Responses,
        Query(description="optional: rows that are prompts alone are taken too, for evaluations"),
    ] = "required",
) -> DatasetOut:
    """Upload a data set. The same content again answers 200 with the same id."""
    async with received(request, services) as upload:
        dataset, created = await accept(upload, chat_model, responses, services)
    response.status_code = 201 if created else 200
    response.headers["Location"] = dataset_path(dataset.id)
    return DatasetOut.of(dataset)


@router.get("")
def list_datasets(
    services: ReadServices,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> DatasetPage:
    """Data sets, newest first."""
    page = services.records.datasets(limit=limit, cursor=cursor)
    items = [DatasetOut.of(dataset) for dataset in page.items]
    return DatasetPage(items=items, next_cursor=page.cursor)


@router.get("/{dataset_id}")
def show_dataset(dataset_id: str, services: ReadServices) -> DatasetOut:
    """What is known of one data set. Its rows are not given out."""
    return DatasetOut.of(services.records.dataset(dataset_id))
