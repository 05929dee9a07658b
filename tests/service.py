"""The whole service as a user starts it: `adapter-safety up`, a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import psutil

from app.config import Settings
from app.storage.artifacts import ObjectArtifacts
from app.storage.records import SqlRecords

READY = "adapter-safety is ready at "
STOP_WITHIN_S = 60


@dataclass
class Service:
    process: "subprocess.Popen[str]"
    url: str
    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def stores(self) -> Iterator[tuple[SqlRecords, ObjectArtifacts]]:
        """Its database and its files, for what no request can put there."""
        given = {**self.settings, "ADAPTER_SAFETY_DATA_DIR": str(self.data)}
        with patch.dict(os.environ, given):
            settings = Settings()
            records = SqlRecords(settings.resolved_database_url)
            try:
                yield records, ObjectArtifacts(settings.resolved_storage_url)
            finally:
                records.close()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> int:
        """One Ctrl-C's worth."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        self.process.communicate(timeout=STOP_WITHIN_S)
        return self.process.returncode


def start(data: Path, model_root: Path, port: int = 0, **settings: str) -> Service:
    """Start on that port, 0: on a free one; returns when it answers."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTER_SAFETY_")}
    environment = {
        **kept,
        "ADAPTER_SAFETY_DATA_DIR": str(data),
        "ADAPTER_SAFETY_MODEL_ROOT": str(model_root),
        "ADAPTER_SAFETY_THREADS": "1",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from app.cli import main; main()", "up", "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith(READY):
            return Service(process, line.removeprefix(READY).split()[0], data, settings)
    raise AssertionError(f"the service did not start; see {data}/logs")


@contextmanager
def running(data: Path, model_root: Path, **settings: str) -> Iterator[Service]:
    service = start(data, model_root, **settings)
    try:
        yield service
    finally:
        service.stop()
