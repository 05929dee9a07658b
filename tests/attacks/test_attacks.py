"""Every hostile file is refused with the right class, names its culprit, and does so quickly."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.adapter import WEIGHTS_FILE
from app.domain.errors import Refused
from app.intake.archives import unpack
from app.intake.manifest import read_manifest
from app.intake.opened import open_adapter
from tests.attacks.hostile import Hostile
from tests.attacks.hostile_archives import ARCHIVES
from tests.attacks.hostile_configs import CONFIGS
from tests.attacks.hostile_costly import COSTLY
from tests.attacks.hostile_fields import FIELDS
from tests.attacks.hostile_kinds import KINDS
from tests.attacks.hostile_polyglots import ARCHIVE_ROWS, WEIGHT_ROWS
from tests.attacks.hostile_weights import WEIGHTS
from tests.intake.files import Q_PROJ, adapter, config_bytes, pair, weights

MAX_S = 5  # because the slowest parses a megabyte; the machine is shared, so the bound is loose
MAX_BYTES = 64 << 20  # because intake holds one header or one chunk, never an archive's content


def check(attack: Hostile, act: Callable[[], object]) -> None:
    started = time.process_time()
    with pytest.raises(Refused) as caught:
        act()
    assert time.process_time() - started < MAX_S
    assert type(caught.value) is attack.error, caught.value
    assert attack.culprit in str(caught.value)
    assert str(caught.value).isprintable()


def names(attacks: list[Hostile]) -> list[str]:
    return [ascii(attack.name)[1:-1][:60] for attack in attacks]


@pytest.mark.parametrize("attack", [*WEIGHTS, *WEIGHT_ROWS], ids=names([*WEIGHTS, *WEIGHT_ROWS]))
def test_hostile_weights_are_refused(attack: Hostile, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", weights=attack.make())
    check(attack, lambda: read_manifest(folder))


OPENED = [*KINDS, *COSTLY, *ARCHIVE_ROWS]


@pytest.mark.parametrize("attack", OPENED, ids=names(OPENED))
def test_hostile_adapters_in_archives_are_refused(attack: Hostile, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(attack.make())
    check(attack, lambda: open_adapter(archive).__enter__())


@pytest.mark.parametrize("attack", [*CONFIGS, *FIELDS], ids=names([*CONFIGS, *FIELDS]))
def test_hostile_configurations_are_refused(attack: Hostile, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", config=attack.make())
    check(attack, lambda: read_manifest(folder))


@pytest.mark.parametrize("attack", ARCHIVES, ids=names(ARCHIVES))
def test_hostile_archives_are_refused_and_leave_nothing(attack: Hostile, tmp_path: Path) -> None:
    archive, into = tmp_path / "archive", tmp_path / "into"
    archive.write_bytes(attack.make())
    into.mkdir()
    check(attack, lambda: unpack(archive, into))
    assert list(into.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "into"}


@pytest.mark.parametrize(
    "attack",
    [a for a in ARCHIVES if "bomb" in a.name or "endless" in a.name or "GiB" in a.name],
    ids=lambda attack: attack.name,
)
def test_bombs_are_not_held_in_memory(attack: Hostile, tmp_path: Path) -> None:
    archive, into = tmp_path / "archive", tmp_path / "into"
    archive.write_bytes(attack.make())
    into.mkdir()
    tracemalloc.start()
    try:
        check(attack, lambda: unpack(archive, into))
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "layers_pattern"])
def test_a_regular_expression_that_python_would_hang_on_is_kept_and_never_run(
    field: str, tmp_path: Path
) -> None:
    module = "a" * 200
    config = config_bytes(**{field: "(a+)+$b"})
    folder = adapter(tmp_path / "a", config, weights(pair(module)))
    started = time.process_time()
    manifest = read_manifest(folder)
    assert time.process_time() - started < MAX_S
    assert manifest.config[field] == "(a+)+$b"


def test_a_pattern_that_python_would_hang_on_resolves_quickly(tmp_path: Path) -> None:
    module = "a" * 200 + "-"
    config = config_bytes(rank_pattern={"(a+)+$": 64}, alpha_pattern={"(a|a)*b": 1})
    folder = adapter(tmp_path / "a", config, weights(pair(module)))
    started = time.process_time()
    assert read_manifest(folder).modules[0].rank == 2
    assert time.process_time() - started < MAX_S


def test_paths_and_imports_in_a_configuration_are_shown_or_dropped_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise AssertionError(args)

    config = config_bytes(
        base_model_name_or_path="/etc/passwd",
        revision="../../x",
        auto_mapping={"base_model_class": "system", "parent_library": "os"},
        megatron_core="antigravity",
    )
    folder = adapter(tmp_path / "a", config)
    monkeypatch.setattr("importlib.import_module", fail)
    manifest = read_manifest(folder)
    assert manifest.base_model_name == "/etc/passwd"
    assert manifest.dropped_keys == ("auto_mapping", "megatron_core")


def test_an_honest_adapter_passes_beside_all_this(tmp_path: Path) -> None:
    manifest = read_manifest(adapter(tmp_path / "a"))
    assert [module.name for module in manifest.modules] == [Q_PROJ]
    assert manifest.files[WEIGHTS_FILE].size_bytes > 0
