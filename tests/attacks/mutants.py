"""What the gate may do with anything at all: accept it consistently, or refuse it."""

import tempfile
from itertools import pairwise
from pathlib import Path

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE, AdapterManifest, TensorEntry
from app.domain.errors import Refused
from app.intake.archives import unpack
from app.intake.manifest import read_manifest


def tried(files: dict[str, bytes]) -> AdapterManifest | None:
    """The manifest of an adapter of these files; None where it is refused. Anything else raises."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return _manifest(folder)


def tried_archive(content: bytes) -> AdapterManifest | None:
    with tempfile.TemporaryDirectory() as name:
        archive, into = Path(name) / "archive", Path(name) / "into"
        archive.write_bytes(content)
        into.mkdir()
        try:
            unpack(archive, into)
        except Refused:
            assert list(into.iterdir()) == []
            return None
        return _manifest(into)


def _manifest(folder: Path) -> AdapterManifest | None:
    try:
        manifest = read_manifest(folder)
    except Refused:
        return None
    check(manifest, (folder / WEIGHTS_FILE).stat().st_size)
    return manifest


def check(manifest: AdapterManifest, size_bytes: int) -> None:
    """What later parts rely on without looking again."""
    assert manifest.files.keys() >= {CONFIG_FILE, WEIGHTS_FILE}
    assert len({module.name for module in manifest.modules}) == len(manifest.modules) > 0
    places: set[tuple[int, int]] = set()
    for module in manifest.modules:
        assert module.lora_a.shape == (module.rank, module.d_in)
        assert module.lora_b.shape == (module.d_out, module.rank)
        assert 0 < abs(module.scaling) < float("inf")
        for vector in (module.bias, module.magnitude):
            assert vector is None or vector.shape == (module.d_out,)
        parts = (module.lora_a, module.lora_b, module.bias, module.magnitude)
        places.update(_place(entry, size_bytes) for entry in parts if entry)
    places.update(_place(weight.entry, size_bytes) for weight in manifest.full_weights)
    ordered = sorted(places)
    assert all(one[1] <= other[0] for one, other in pairwise(ordered))


def _place(entry: TensorEntry, size_bytes: int) -> tuple[int, int]:
    assert 0 < entry.begin < entry.end <= size_bytes
    return entry.begin, entry.end
