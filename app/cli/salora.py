"""`adapter-safety salora`: keep a fine-tuning from unlearning refusals (arXiv 2501.01765)."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.examples import epilog
from app.cli.exits import explained
from app.cli.folders import check_new
from app.cli.salora_ids import file_id, kit_id, module_id
from app.cli.tables import print_json, print_salora
from app.domain.salora import (
    Encoding,
    ExportRecipe,
    InitRecipe,
    Recipe,
    SafetyModuleRecipe,
    TrainRecipe,
)
from app.imports import lasting_imports

salora = typer.Typer(
    help="Train adapters that cannot move a chat model along the directions of its refusals "
    "(SaLoRA, arXiv 2501.01765): module, init, train, export.",
    no_args_is_help=True,
)

Chat = Annotated[str, typer.Argument(help="chat model: folder or id")]
Out = Annotated[Path, typer.Option(help="new folder for the result")]
Server = Annotated[str | None, typer.Option(help="let this server do it")]
AsJson = Annotated[bool, typer.Option("--json", help="print the report's JSON and nothing else")]
Template = Annotated[
    bool, typer.Option("--chat-template/--no-chat-template", help="or prompt and response raw")
]
MaxLength = Annotated[int, typer.Option(help="tokens of a conversation; the rest is cut off")]
Dtype = Annotated[str, typer.Option(help="in which the model runs: auto, float32 or bfloat16")]
DATA = 'JSON lines: {"prompt": ..., "response": ...} or {"messages": [...]}'


@salora.command(epilog=epilog("salora module"))
def module(
    chat: Chat,
    data: Annotated[Path, typer.Option(help=f"prompts that the model refuses, {DATA}")],
    out: Out,
    target: Annotated[str, typer.Option(help="names as in PEFT, with commas")] = "q_proj,v_proj",
    rank: Annotated[int, typer.Option(help="directions of each module")] = 32,
    chat_template: Template = True,
    max_length: MaxLength = 1024,
    dtype: Dtype = "auto",
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Find the directions in which the chat model's outputs go while it refuses."""
    with explained():
        targets = tuple(filter(None, (name.strip() for name in target.split(","))))
        encoding = Encoding(chat_template, max_length)
        recipe = SafetyModuleRecipe(file_id(data), targets, rank, encoding, dtype)  # type: ignore[arg-type] # checked there
        check_new(out)
        if server:
            from app.cli import salora_remote

            settings = _settings(recipe, "dataset")
            found = salora_remote.make_module(server, chat, data, settings, out)
        else:
            with lasting_imports():
                from app.cli import salora_here  # here, because this imports torch

            found = salora_here.make_module(chat, data, recipe, out)
    _say(found, "safety module", out, json_)


@salora.command(epilog=epilog("salora init"))
def init(
    chat: Chat,
    module: Annotated[Path, typer.Option(help="folder of the safety module")],
    out: Out,
    task_data: Annotated[Path | None, typer.Option(help=f"the task's, {DATA}")] = None,
    rank: Annotated[int, typer.Option(help="of the adapter")] = 16,
    alpha: Annotated[float | None, typer.Option(help="lora_alpha [the rank]")] = None,
    rslora: Annotated[bool, typer.Option("--rslora", help="scale by the root of the rank")] = False,
    task_rank: Annotated[int, typer.Option(help="directions of the task's subspace")] = 32,
    initialisation: Annotated[str, typer.Option(help="salora, or zero as PEFT's")] = "salora",
    chat_template: Template = True,
    max_length: MaxLength = 1024,
    dtype: Dtype = "auto",
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Make a kit: where a training starts, and the safety module that holds it."""
    with explained():
        recipe = InitRecipe(
            safety_module=module_id(module),
            dataset=None if task_data is None else file_id(task_data),
            rank=rank,
            alpha=alpha,
            use_rslora=rslora,
            task_rank=task_rank,
            initialisation=initialisation,  # type: ignore[arg-type] # checked there
            encoding=Encoding(chat_template, max_length),
            dtype=dtype,  # type: ignore[arg-type] # checked there
        )
        check_new(out)
        if server:
            from app.cli import salora_remote

            settings = _settings(recipe, "safety_module", "dataset")
            found = salora_remote.init(server, chat, module, task_data, settings, out)
        else:
            with lasting_imports():
                from app.cli import salora_here  # here, because this imports torch

            found = salora_here.init(chat, module, task_data, recipe, out)
    _say(found, "kit", out, json_)


@salora.command(epilog=epilog("salora train"))
def train(
    chat: Chat,
    kit: Annotated[Path, typer.Option(help="folder of the kit")],
    data: Annotated[Path, typer.Option(help=f"the task's, {DATA}")],
    out: Out,
    epochs: Annotated[float, typer.Option(help="passes over the data")] = 1.0,
    lr: Annotated[float, typer.Option(help="learning rate at the start; falls to 0")] = 1e-4,
    batch_size: Annotated[int, typer.Option(help="conversations of one step")] = 16,
    accumulation: Annotated[int, typer.Option(help="batches of one step")] = 1,
    weight_decay: Annotated[float, typer.Option(help="AdamW's")] = 0.0,
    warmup_steps: Annotated[int, typer.Option(help="steps until the learning rate is full")] = 0,
    seed: Annotated[int, typer.Option(help="of the order of the data")] = 0,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="less memory, more time")
    ] = False,
    checkpoint_steps: Annotated[int, typer.Option(help="steps between two checkpoints")] = 50,
    rank: Annotated[int | None, typer.Option(help="of the result [exact]")] = None,
    plain_lora: Annotated[
        bool, typer.Option("--plain-lora", help="an ordinary LoRA, to compare with")
    ] = False,
    chat_template: Template = True,
    max_length: MaxLength = 1024,
    dtype: Dtype = "auto",
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Train a kit's adapter, and export it as an ordinary LoRA."""
    with explained():
        recipe = TrainRecipe(
            kit=kit_id(kit),
            dataset=file_id(data),
            epochs=epochs,
            learning_rate=lr,
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            checkpoint_steps=checkpoint_steps,
            export_rank=rank,
            plain_lora=plain_lora,
            encoding=Encoding(chat_template, max_length),
            dtype=dtype,  # type: ignore[arg-type] # checked there
        )
        check_new(out)
        if server:
            from app.cli import salora_remote

            settings = _settings(recipe, "kit", "dataset")
            found = salora_remote.train(server, chat, kit, data, settings, out)
        else:
            with lasting_imports():
                from app.cli import salora_here  # here, because this imports torch

            found = salora_here.train(chat, kit, data, recipe, out)
    _say(found, "adapter", out, json_)


@salora.command(epilog=epilog("salora export"))
def export(
    kit: Annotated[Path, typer.Option(help="folder of the kit")],
    adapter: Annotated[Path, typer.Option(help="what was trained with the kit attached")],
    out: Out,
    rank: Annotated[int | None, typer.Option(help="recompress to it [exact]")] = None,
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Turn what was trained with a kit attached into an ordinary LoRA of the chat model."""
    with explained():
        recipe = ExportRecipe(kit_id(kit), rank)
        check_new(out)
        if server:
            from app.cli import salora_remote

            found = salora_remote.export(server, kit, adapter, _settings(recipe, "kit"), out)
        else:
            with lasting_imports():
                from app.cli import salora_here  # here, because this imports torch

            found = salora_here.export_here(kit, adapter, recipe, out)
    _say(found, "adapter", out, json_)


def _say(report: dict[str, Any], what: str, out: Path, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    print_salora(report)
    typer.echo(f"{what}: {out}")


def _settings(recipe: Recipe, *without: str) -> dict[str, Any]:
    """A recipe as the API takes it: flat, without what is named by ids."""
    found = asdict(recipe)
    flat = {**found, **found.pop("encoding", {})}
    return {name: value for name, value in flat.items() if name not in (*without, "encoding")}
