"""Reports of made-up jobs, put where the service finds them: larger than any that tests train."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config import Settings
from app.domain.errors import WorkerFault
from app.domain.job import Fault, Job, JobKind, JobResult
from app.domain.method import Method, Selection
from app.domain.report import (
    AdapterReference,
    LayerReport,
    ModelReference,
    Report,
    Serving,
    Summary,
    Unscreened,
)
from app.domain.verdict import Action, Push
from app.jobs.decide import decided, method_reference
from app.storage.verdicts import SqlVerdicts
from tests.samples import a_file, a_job, an_adapter, entry_of
from tests.service import Service

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE, CHAT = "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf"
DAY = "2026-10-02"
HOSTILE = "x<img src=x onerror=alert(1)><script>window.pwned=1</script>"
NO_SUMMARY = Summary(0, 0, 0, 0, None, None, None, None)


def layers(count: int, seed: int = 3) -> list[LayerReport]:
    """Seven kinds a layer; the cosines fall with depth, as trained adapters' do."""
    numbers = random.Random(seed)
    depth = math.ceil(count / len(KINDS))
    return [_layer(i // len(KINDS), KINDS[i % len(KINDS)], depth, i, numbers) for i in range(count)]


def _layer(layer: int, kind: str, depth: int, i: int, numbers: random.Random) -> LayerReport:
    place = "self_attn" if kind[0] in "qkvo" and kind != "up_proj" else "mlp"
    skipped = i % 97 == 60
    lean = 0.62 - 0.35 * layer / depth + 0.05 * math.sin(KINDS.index(kind))
    cosine = None if skipped else min(0.99, max(0.02, numbers.gauss(lean, 0.09)))
    return LayerReport(
        module=f"model.layers.{layer}.{place}.{kind}",
        layer=layer,
        kind=kind,
        shape=(4096, 4096 if place == "self_attn" else 11008),
        rank=16,
        cosine=cosine,
        retained_energy=None if cosine is None else 0.4 * cosine**2 + 0.01,
        update_norm=0.0 if skipped else 1.4 + 0.3 * numbers.random(),
        alignment_norm=None if skipped else 8.0 + numbers.random(),
        pdst=None,
        pdst_if_selected=None if skipped else 1.0,
        pdst_if_kept=None if skipped else 0.42 + 0.1 * numbers.random(),
        rounding=None if skipped else 0.002,
        alignment=None if skipped else "cache",
        note="",
        decision="skipped" if skipped else "kept",
        reason="the update is zero, so it has no cosine" if skipped else "",
    )


def a_report(found: Sequence[LayerReport], threshold: float = 0.42) -> dict[str, Any]:
    method = Method("subspace", 0.9, select=Selection("threshold", threshold))
    report = Report(
        adapter=AdapterReference("a" * 64, CHAT, ("auto_mapping",)),
        base_model=ModelReference(BASE, "0" * 40, "b" * 64),
        chat_model=ModelReference(CHAT, "1" * 40, "c" * 64),
        method=method_reference(method),
        summary=NO_SUMMARY,
        layers=found,
        unscreened=[Unscreened("lm_head.weight", "is saved whole (modules_to_save)", "kept")],
        warnings=[],
        versions={"adapter-safety": "0.1.0", "torch": "2.9.0"},
        serving=[
            Serving(
                "vLLM",
                "setting",
                ["rank 16 needs --max-lora-rank 16"],
                "docs.vllm.ai",
                DAY,
            ),
            Serving("SGLang", "yes", [], "docs.sglang.ai", DAY),
            Serving("LoRAX", "unknown", ["no source says"], "loraexchange.ai", DAY),
        ],
    )
    return decided(report, method).as_json()


def keep(service: Service, folder: Path, report: dict[str, Any], kind: JobKind = "patch") -> str:
    """The id of a job that has this report. No worker hears of it."""
    path, file = a_file(folder, json.dumps(report).encode())
    method = Method("subspace", 0.9, select=Selection("threshold", 0.42))
    models = {
        "base_model": BASE,
        "chat_model": CHAT,
    }
    adapter = an_adapter(base_model_name=models["chat_model"])
    with service.stores() as (records, artifacts):
        artifacts.put(path, file)
        records.add_adapter(adapter)
        job = a_job(adapter, kind=kind, method=method, **models)
        return _ended(records, job, JobResult(file, entry_of(b"zip") if kind == "patch" else None))


def keep_running(service: Service) -> str:
    with service.stores() as (records, _):
        adapter = an_adapter(base_model_name="org/chat")
        records.add_adapter(adapter)
        job = a_job(adapter)
        records.add_job(job, None)
        records.claim(job.id, lease_s=3600)
        return job.id


def keep_failed(service: Service) -> str:
    with service.stores() as (records, _):
        adapter = an_adapter(base_model_name="org/chat")
        records.add_adapter(adapter)
        return _ended(records, a_job(adapter), None)


def keep_verdict(service: Service, job: str) -> str:
    """Of a push that was answered, with the job that it was judged by; its reason."""
    why = "2 of 224 modules were skipped, not screened"
    push = Push("a-webhook", "a-repository", "acme/adapter", "refs/heads/main", "5" * 40)
    with service.stores():
        verdicts = SqlVerdicts(Settings().resolved_database_url)
    verdicts.receive(push)
    held = verdicts.claim(lease_s=60)
    assert held is not None
    answer = Action("discussion", "done", 7, "https://hub.example/acme/adapter/discussions/7")
    judged = replace(held, job=job).judged("review", why)
    verdicts.give_back(replace(judged, state="done", actions=(answer,)))
    verdicts.close()
    return why


def _ended(records: Any, job: Job, result: JobResult | None) -> str:
    records.add_job(job, None)
    held = records.claim(job.id, lease_s=3600)
    if result is None:
        fault = Fault.of(WorkerFault(kind="ValueError"))
        records.finish(job.id, fence=held.fence, status="failed", fault=fault)
    else:
        records.finish(job.id, fence=held.fence, status="succeeded", result=result)
    return job.id
