"""How much memory the API takes while a gigabyte goes in and comes out."""

import json
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import psutil

from app.domain.job import JobResult
from app.storage.records import SqlRecords
from tests.samples import a_job
from tests.service import Service

GIB = 1 << 30
RANK, D_IN = 256, 64
PIECE = bytes(1 << 20)
LOOK_EVERY_S = 0.02


@dataclass
class Peak:
    """Resident memory of a process: before, and the most while something went on; bytes."""

    before: int
    most: int

    @property
    def growth_mib(self) -> float:
        return (self.most - self.before) / (1 << 20)


@contextmanager
def watched(process: psutil.Process) -> Iterator[Peak]:
    before = process.memory_info().rss
    peak, done = Peak(before, before), threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY_S):
            peak.most = max(peak.most, process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def api_process(service: Service) -> psutil.Process:
    return next(p for p in service.children() if "uvicorn" in " ".join(p.cmdline()))


def upload_and_download(service: Service, url: str) -> dict[str, float]:
    """MiB by which the API's memory grew at its most during each. `url` is the database's."""
    api, grown = api_process(service), {}
    with httpx.Client(base_url=service.url, timeout=600) as http:
        with watched(api) as peak:
            adapter = http.post("/v1/adapters", **_upload())
        assert adapter.status_code == 201, adapter.text
        grown["1 GiB upload"] = peak.growth_mib
        job = _job_with_large_result(url, adapter.json()["id"])
        with watched(api) as peak:
            received = _download(http, f"/v1/jobs/{job}/adapter")
        assert received > GIB
        grown["1 GiB download"] = peak.growth_mib
    return grown


def _upload() -> dict[str, object]:
    """A multipart body of an adapter of a gigabyte, made while it is sent."""
    boundary = uuid.uuid4().hex
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["lm_head"]}
    heads = [
        _part(boundary, "config", "adapter_config.json") + json.dumps(config).encode(),
        _part(boundary, "weights", "adapter_model.safetensors") + _header(),
    ]
    end = f"\r\n--{boundary}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield b"\r\n".join(heads)
        for _ in range(GIB // len(PIECE)):
            yield PIECE
        yield bytes(4 * RANK * D_IN) + end

    return {
        "content": pieces(),
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


def _part(boundary: str, name: str, file: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'
    ).encode()


def _header() -> bytes:
    """Of two F32 factors: B of a gigabyte, then A."""
    module, d_out = "base_model.model.lm_head", GIB // 4 // RANK
    ends = (GIB, GIB + 4 * RANK * D_IN)
    tensors = {
        f"{module}.lora_B.weight": {
            "dtype": "F32", "shape": [d_out, RANK], "data_offsets": [0, ends[0]]
        },
        f"{module}.lora_A.weight": {
            "dtype": "F32", "shape": [RANK, D_IN], "data_offsets": [ends[0], ends[1]]
        },
    }  # fmt: skip
    raw = json.dumps(tensors).encode()
    return struct.pack("<Q", len(raw)) + raw


def _job_with_large_result(url: str, adapter_id: str) -> str:
    """A job that ended with the upload's own weights as its archive: what is downloaded is theirs
    to the API, whatever is in it."""
    records = SqlRecords(url)
    adapter = records.adapter(adapter_id)
    job = records.add_job(replace(a_job(adapter), id=uuid.uuid4().hex), None)
    claimed = records.claim(job.id, lease_s=60)
    assert claimed is not None
    large = max(adapter.files.values(), key=lambda file: file.size_bytes)
    result = JobResult(report=large, archive=large)
    records.finish(job.id, fence=claimed.fence, status="succeeded", result=result)
    records.close()
    return job.id


def _download(http: httpx.Client, path: str) -> int:
    received = 0
    with http.stream("GET", path) as answer:
        for piece in answer.iter_raw(1 << 20):
            received += len(piece)
            time.sleep(0)  # so that the watching thread gets its turn
    return received
