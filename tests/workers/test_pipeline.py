"""The whole pipeline on real models and adapters, against the dense float64 reference."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.alignment.projection import ZERO_ALIGNMENT, ZERO_UPDATE
from app.domain.adapter import CONFIG_FILE, README_FILE, REPORT_FILE, WEIGHTS_FILE
from app.domain.errors import JobCancelled, NonFiniteTensor
from app.domain.method import PROJECTORS, Method, Selection
from app.domain.report import Report
from app.intake.checkpoint import read_checkpoint
from app.intake.manifest import read_manifest
from app.jobs.render import plain_markdown
from tests.alignment import reference
from tests.factory import World, dense_weight, make_world
from workers.output import write_patched_adapter, zip_adapter
from workers.pipeline import NamedCheckpoint, PatchInput, Progress

COSINE_TOLERANCE = 1e-6
B_TOLERANCE = {  # relative; half precision may be one rounding away from the rounded reference
    torch.float64: 1e-5,
    torch.float32: 1e-5,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
}
SELECTIONS = [
    Selection("threshold", 0.5),
    Selection("count", 3),
    Selection("fraction", 0.5),
    Selection("all", None),
]


def given(world: World, method: Method) -> PatchInput:
    def named(name: str, folder: Path) -> NamedCheckpoint:
        return NamedCheckpoint(name, read_checkpoint(folder, field=name, model=name))

    manifest = read_manifest(world.adapter)
    base, chat = named("base_model", world.base), named("chat_model", world.chat)
    return PatchInput(world.adapter, manifest, base, chat, method)


def run(world: World, method: Method, out: Path, threads: int = 1) -> Report:
    out.mkdir()
    return write_patched_adapter(
        given(world, method), out, threads=threads, on_module=lambda _: None
    )


def checkpoint_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
    return tensors


def assert_matches_reference(world: World, method: Method, report: Report, out: Path) -> None:
    """Every number and every tensor of the result, from the formulas."""
    before, after = load_file(world.adapter / WEIGHTS_FILE), load_file(out / WEIGHTS_FILE)
    base, chat = checkpoint_tensors(world.base), checkpoint_tensors(world.chat)
    assert [layer.module for layer in report.layers] == [
        m.name for m in read_manifest(world.adapter).modules
    ]
    assert before.keys() == after.keys()
    assert {
        f"base_model.model.{la.module}.lora_{s}.weight" for la in report.layers for s in "AB"
    } == set(before)
    cosines = []
    for layer in report.layers:
        weights = [dense_weight(t, layer.module, world.architecture) for t in (chat, base)]
        c = reference.projector(*weights, method)
        key = f"base_model.model.{layer.module}.lora_"
        a, b = before[key + "A.weight"], before[key + "B.weight"]
        cosines.append(reference.cosine(c, a, b))
        assert layer.cosine == pytest.approx(cosines[-1], abs=COSINE_TOLERANCE)
        assert torch.equal(after[key + "A.weight"], a)
        assert after[key + "B.weight"].dtype == b.dtype
        expected = (c @ b.double()).to(b.dtype) if layer.decision == "projected" else b
        error = torch.linalg.norm(after[key + "B.weight"].double() - expected.double())
        allowed = B_TOLERANCE[b.dtype] if layer.decision == "projected" else 0.0
        assert error <= allowed * torch.linalg.norm(expected.double())
    cosines = [round(cosine, 9) for cosine in cosines]  # a tie is a tie, whatever the rounding
    picked = {i for i, layer in enumerate(report.layers) if layer.decision == "projected"}
    assert picked == reference.selected(cosines, method.select)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    def make(name: str, architecture: str, **options: object) -> World:
        return make_world(tmp_path_factory.mktemp(name), architecture, **options)

    half = {"base_dtype": torch.bfloat16, "chat_dtype": torch.float16}
    return {
        "llama": make("llama", "llama"),
        "llama, bf16 checkpoints in shards, bf16 adapter": make(
            "llama-bf16",
            "llama",
            base_dtype=torch.bfloat16,
            chat_dtype=torch.bfloat16,
            shard_size="8KB",
            adapter_dtype=torch.bfloat16,
        ),
        "qwen2 with biases, mixed halves, fp16 adapter": make(
            "qwen2", "qwen2", **half, adapter_dtype=torch.float16, use_rslora=True
        ),
        "qwen2, float64 chat in shards": make(
            "qwen2-f64", "qwen2", chat_dtype=torch.float64, shard_size="20KB"
        ),
        "gpt2 with Conv1D": make("gpt2", "gpt2"),
        "gpt2 with Conv1D, bf16": make(
            "gpt2-bf16", "gpt2", base_dtype=torch.bfloat16, chat_dtype=torch.bfloat16
        ),
        "rank and alpha patterns": make(
            "patterns",
            "llama",
            rank_pattern={"q_proj": 2, r"layers.1.mlp.down_proj": 7},
            alpha_pattern={"v_proj": 32},
            use_rslora=True,
        ),
        "one layer of two": make("layers", "llama", layers_to_transform=[1]),
        "rank equal to d_out and d_in": make("square", "llama", r=32, target_modules=["q_proj"]),
        "rank equal to d_out, wide": make("wide", "llama", r=16, target_modules=["v_proj"]),
    }


WORLDS = [
    "llama",
    "llama, bf16 checkpoints in shards, bf16 adapter",
    "qwen2 with biases, mixed halves, fp16 adapter",
    "qwen2, float64 chat in shards",
    "gpt2 with Conv1D",
    "gpt2 with Conv1D, bf16",
    "rank and alpha patterns",
    "one layer of two",
    "rank equal to d_out and d_in",
    "rank equal to d_out, wide",
]


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("select", SELECTIONS, ids=lambda s: s.by)
def test_every_projector_and_selection_gives_the_reference_result(
    worlds: dict[str, World], name: str, projector: str, select: Selection, tmp_path: Path
) -> None:
    world = worlds[name]
    if select.by == "count" and len(read_manifest(world.adapter).modules) < 3:
        select = Selection("count", 1)
    method = Method(projector, select=select)
    report = run(world, method, tmp_path / "out")
    assert_matches_reference(world, method, report, tmp_path / "out")


@pytest.mark.parametrize("name", ["llama", "gpt2 with Conv1D", "rank and alpha patterns"])
def test_peft_computes_the_chat_model_plus_the_projected_update(
    worlds: dict[str, World], name: str, tmp_path: Path
) -> None:
    """PEFT is the oracle: merged weights are W + s C B A where projected, else W + s B A."""
    world = worlds[name]
    method = Method("approximate", select=Selection("fraction", 0.5))
    report = run(world, method, tmp_path / "out")
    model = world.chat_model()
    merged = PeftModel.from_pretrained(model, str(tmp_path / "out")).merge_and_unload()
    found = {k: v.detach() for k, v in merged.state_dict().items()}
    base, chat = checkpoint_tensors(world.base), checkpoint_tensors(world.chat)
    before = load_file(world.adapter / WEIGHTS_FILE)
    scalings = {m.name: m.scaling for m in read_manifest(world.adapter).modules}
    for layer in report.layers:
        w_chat, w_base = (dense_weight(t, layer.module, world.architecture) for t in (chat, base))
        a, b = (before[f"base_model.model.{layer.module}.lora_{s}.weight"].double() for s in "AB")
        projected = layer.decision == "projected"
        c_b = reference.projector(w_chat, w_base, method) @ b if projected else b
        expected = w_chat + scalings[layer.module] * c_b @ a
        assert torch.allclose(
            dense_weight(found, layer.module, world.architecture).double(), expected, atol=2e-6
        )
        assert layer.update_norm == pytest.approx(
            float(torch.linalg.norm(scalings[layer.module] * b @ a)), rel=1e-6
        )


@pytest.mark.parametrize("saved", [("base",), ("chat",), ("base", "chat")], ids=str)
def test_a_checkpoint_saved_without_its_head_has_the_same_modules(
    worlds: dict[str, World], saved: tuple[str, ...], tmp_path: Path
) -> None:
    """As the original GPT-2 was saved: `h.0...` instead of `transformer.h.0...`."""
    world = worlds["gpt2 with Conv1D"]
    folders = {"base": world.base, "chat": world.chat}
    for part in saved:
        target = tmp_path / part
        target.mkdir()
        (target / "config.json").write_bytes((folders[part] / "config.json").read_bytes())
        tensors = load_file(folders[part] / "model.safetensors")
        bare = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        save_file(bare, target / "model.safetensors", {"format": "pt"})
        folders[part] = target
    bare_world = World(folders["base"], folders["chat"], world.adapter, "gpt2")
    bare_layers = run(bare_world, Method(), tmp_path / "bare").layers
    for found, expected in zip(
        bare_layers, run(world, Method(), tmp_path / "full").layers, strict=True
    ):
        assert replace(found, note="", reason="") == replace(expected, note="", reason="")
        stored = f"{found.module.removeprefix('transformer.')}.weight"
        assert found.note == (f"its weight in the checkpoint is {stored}" * ("chat" in saved))


def test_the_result_is_a_peft_folder_with_untouched_parts_byte_for_byte(
    llama_world: World, tmp_path: Path
) -> None:
    report = run(llama_world, Method(select=Selection("count", 2)), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE, README_FILE]
    )
    for name in (CONFIG_FILE,):
        assert (tmp_path / "out" / name).read_bytes() == (llama_world.adapter / name).read_bytes()
    before = (llama_world.adapter / WEIGHTS_FILE).read_bytes()
    after = bytearray((tmp_path / "out" / WEIGHTS_FILE).read_bytes())
    assert after != before
    projected = {layer.module for layer in report.layers if layer.decision == "projected"}
    for module in read_manifest(llama_world.adapter).modules:
        if module.name in projected:
            after[module.lora_b.begin : module.lora_b.end] = before[
                module.lora_b.begin : module.lora_b.end
            ]
    assert bytes(after) == before


def test_the_adapters_own_readme_gets_a_section(llama_world: World, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (adapter / name).write_bytes((llama_world.adapter / name).read_bytes())
    (adapter / README_FILE).write_text("---\nlicense: mit\n---\n# Mine\n")
    world = World(llama_world.base, llama_world.chat, adapter, "llama")
    run(world, Method(), tmp_path / "out")
    readme = (tmp_path / "out" / README_FILE).read_text()
    assert readme.startswith("---\nlicense: mit\n---\n## Safety patch\n")
    assert readme.endswith("\n# Mine\n")
    assert "model.layers.0.self_attn.q_proj" in readme


@pytest.mark.parametrize("own", ["<!-- and no end", "```\nand no end", "# A\r\n\r\nb\r\n"])
def test_an_adapters_readme_cannot_swallow_or_change_the_section(
    llama_world: World, tmp_path: Path, own: str
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (adapter / name).write_bytes((llama_world.adapter / name).read_bytes())
    (adapter / README_FILE).write_bytes(own.encode())
    world = World(llama_world.base, llama_world.chat, adapter, "llama")
    run(world, Method(), tmp_path / "out")
    readme = (tmp_path / "out" / README_FILE).read_bytes().decode()
    assert readme.startswith("## Safety patch\n")
    assert readme.endswith(own)


def test_what_a_stranger_wrote_is_no_markup_in_our_section() -> None:
    assert plain_markdown("a\n\n## Safe <!-- [x](y) `z`") == (
        r"a \#\# Safe \<\!-- \[x\]\(y\) \`z\`"
    )


def test_a_half_precision_candidate_too_large_for_its_dtype_matters_only_if_chosen(
    tmp_path: Path,
) -> None:
    world = make_world(tmp_path / "w", adapter_dtype=torch.float16, target_modules=["q_proj"])
    scale = load_file(world.chat / "model.safetensors")
    for name in (f"{Q0}.weight",):
        scale[name] = scale[name] + torch.randn_like(scale[name]) * 1e7
    save_file(scale, world.chat / "model.safetensors", {"format": "pt"})
    report = run(world, Method(select=Selection("count", 0)), tmp_path / "none")
    assert report.summary.projected == 0
    with pytest.raises(NonFiniteTensor) as caught:
        run(world, Method(select=Selection("all", None)), tmp_path / "all")
    assert caught.value.facts["source"] == "patched adapter"


def test_a_dtype_too_coarse_for_the_projected_factor_is_told(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w", adapter_dtype=torch.float16)
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    small = {n: t * 1e-5 if "lora_B" in n else t for n, t in tensors.items()}
    save_file(small, world.adapter / WEIGHTS_FILE, {"format": "pt"})
    report = run(world, Method(select=Selection("all", None)), tmp_path / "out")
    assert any("too coarse" in warning for warning in report.warnings)


def test_another_chat_model_than_the_adapter_names_is_told(
    llama_world: World, tmp_path: Path
) -> None:
    inputs = given(llama_world, Method())
    other = NamedCheckpoint("org/other", inputs.chat.checkpoint)
    (tmp_path / "out").mkdir()
    report = write_patched_adapter(
        replace(inputs, chat=other), tmp_path / "out", threads=1, on_module=lambda _: None
    )
    assert any("org/chat" in w and "org/other" in w for w in report.warnings)


def test_unknown_config_keys_are_left_out_and_named(llama_world: World, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = json.loads((llama_world.adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**config, "hello": {"x": 1}}, indent=2))
    (adapter / WEIGHTS_FILE).write_bytes((llama_world.adapter / WEIGHTS_FILE).read_bytes())
    world = World(llama_world.base, llama_world.chat, adapter, "llama")
    report = run(world, Method(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / CONFIG_FILE).read_text()) == config
    assert report.adapter.dropped_config_keys == ("hello",)
    assert any("hello" in warning for warning in report.warnings)


def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads(
    llama_world: World, tmp_path: Path
) -> None:
    digests = set()
    for name, threads in (("a", 1), ("b", 2)):
        run(llama_world, Method(), tmp_path / name, threads)
        zip_adapter(tmp_path / name, tmp_path / f"{name}.zip")
        digests.add((tmp_path / f"{name}.zip").read_bytes())
    assert len(digests) == 1


def altered(world: World, folder: Path, tensor: str, change: object, part: str) -> World:
    """A copy of one part of a world with one tensor changed."""
    source = {"adapter": world.adapter, "chat": world.chat, "base": world.base}[part]
    target = folder / part
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".json":
            (target / path.name).write_bytes(path.read_bytes())
    (file,) = source.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors[tensor])
    save_file(tensors, target / file.name, {"format": "pt"})
    parts = {"base": world.base, "chat": world.chat, "adapter": world.adapter, part: target}
    return World(**parts, architecture=world.architecture)


Q0 = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "tensor", "source"),
    [
        ("adapter", f"base_model.model.{Q0}.lora_A.weight", "adapter"),
        ("adapter", f"base_model.model.{Q0}.lora_B.weight", "adapter"),
        ("chat", f"{Q0}.weight", "chat model"),
        ("base", f"{Q0}.weight", "base model"),
    ],
)
def test_nan_and_infinity_fail_the_job_with_the_tensors_name(
    llama_world: World, tmp_path: Path, part: str, tensor: str, source: str, value: float
) -> None:
    world = altered(llama_world, tmp_path, tensor, lambda t: t[1].fill_(value), part)
    for projector in ("approximate", "exact"):
        with pytest.raises(NonFiniteTensor) as caught:
            run(world, Method(projector), tmp_path / projector)
        assert caught.value.facts == {"tensor": tensor, "source": source}


def test_a_skipped_module_is_never_projected_or_called_kept(
    llama_world: World, tmp_path: Path
) -> None:
    same = load_file(llama_world.base / "model.safetensors")[f"{Q0}.weight"]
    world = altered(llama_world, tmp_path, f"{Q0}.weight", lambda t: t.copy_(same), "chat")
    v0 = "model.layers.0.self_attn.v_proj"
    world = altered(
        world, tmp_path, f"base_model.model.{v0}.lora_B.weight", lambda t: t.zero_(), "adapter"
    )
    report = run(world, Method(select=Selection("all", None)), tmp_path / "out")
    skipped = {la.module: la for la in report.layers if la.decision == "skipped"}
    assert {name: la.reason for name, la in skipped.items()} == {
        Q0: ZERO_ALIGNMENT,
        v0: ZERO_UPDATE,
    }
    assert all(la.cosine is None and la.pdst is None for la in skipped.values())
    assert (report.summary.projected, report.summary.skipped) == (4, 2)
    assert any("were not screened" in warning for warning in report.warnings)
    key = f"base_model.model.{Q0}.lora_B.weight"
    after, before = (load_file(f / WEIGHTS_FILE) for f in (tmp_path / "out", world.adapter))
    assert torch.equal(after[key], before[key])


def test_progress_is_told_module_by_module_and_may_stop_the_work(
    llama_world: World, tmp_path: Path
) -> None:
    told: list[Progress] = []

    def stop_at_two(progress: Progress) -> None:
        told.append(progress)
        if progress.done == 2:
            raise JobCancelled

    (tmp_path / "out").mkdir()
    with pytest.raises(JobCancelled):
        write_patched_adapter(
            given(llama_world, Method()), tmp_path / "out", threads=1, on_module=stop_at_two
        )
    assert [(p.done, p.total) for p in told] == [(1, 6), (2, 6)]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_patch_that_removes_updates_says_so(llama_world: World, tmp_path: Path) -> None:
    report = run(llama_world, Method(select=Selection("all", None)), tmp_path / "out")
    removed = sum(la.retained_energy < 0.1 for la in report.layers)
    assert removed
    assert any(f"the update of {removed} of 6" in warning for warning in report.warnings)


def test_the_exact_projector_on_full_rank_modules_says_that_nothing_changed(
    llama_world: World, tmp_path: Path
) -> None:
    report = run(llama_world, Method("exact", select=Selection("all", None)), tmp_path / "out")
    assert any("is the identity for" in warning for warning in report.warnings)
    assert load_file(tmp_path / "out" / WEIGHTS_FILE).keys()
