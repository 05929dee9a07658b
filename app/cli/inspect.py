"""`adapter-safety inspect`: the gate alone, without torch and without a service."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import REFUSED
from app.domain.adapter import AdapterManifest
from app.domain.errors import AdapterSafetyError
from app.intake.opened import open_adapter


def inspect(
    adapter: Annotated[Path, typer.Argument(help="adapter folder, zip, tar or tar.gz")],
) -> None:
    """Print the adapter's manifest, or the refusal, as JSON. Exit 0 accepted, 1 refused."""
    try:
        with open_adapter(adapter) as opened:
            answer = manifest_json(opened.manifest)
    except AdapterSafetyError as error:
        typer.echo(json.dumps(refusal_json(error), indent=2))
        raise typer.Exit(REFUSED) from error
    typer.echo(json.dumps(answer, indent=2))


def manifest_json(manifest: AdapterManifest) -> dict[str, Any]:
    return {
        "accepted": True,
        "id": manifest.id,
        "files": {
            name: {"sha256": file.sha256, "size_bytes": file.size_bytes}
            for name, file in manifest.files.items()
        },
        "base_model_name_or_path": manifest.base_model_name,
        "dropped_config_keys": list(manifest.dropped_keys),
        "modules": [
            {
                "module": m.name,
                "rank": m.rank,
                "alpha": m.alpha,
                "scaling": m.scaling,
                "d_out": m.d_out,
                "d_in": m.d_in,
                "dtype": m.lora_b.dtype,
                "layer_type": m.layer_type,
                "dora": m.magnitude is not None,
            }
            for m in manifest.modules
        ],
        "full_weights": [
            {"parameter": weight.name, "feature": weight.feature}
            for weight in manifest.full_weights
        ],
    }


def refusal_json(error: AdapterSafetyError) -> dict[str, Any]:
    kind = f"urn:adapter-safety:problem:{error.code}"
    return {
        "accepted": False,
        **error.facts,
        "type": kind,
        "title": error.title,
        "detail": str(error),
    }
