import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.processor import prepare_numpy

FLAGS = "fpu sse2 avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


def cpuinfo(folder: Path, vendor: str, flags: str = FLAGS) -> Path:
    """As Linux writes it."""
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n"
    path = folder / "cpuinfo"
    path.write_text(core + core.replace(flags, "none"))
    return path


def test_another_makers_avx512_makes_products_numpys_business_with_one_thread_of_its_own(
    tmp_path: Path,
) -> None:
    environment: dict[str, str] = {}
    assert prepare_numpy(cpuinfo(tmp_path, "AuthenticAMD"), environment, loaded=())
    assert environment == {"OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("vendor", "flags"),
    [
        ("GenuineIntel", FLAGS),
        ("AuthenticAMD", FLAGS.replace("avx512vl", "")),
        ("AuthenticAMD", ""),
    ],
)
def test_elsewhere_they_stay_torchs_and_nothing_is_set(
    vendor: str, flags: str, tmp_path: Path
) -> None:
    environment: dict[str, str] = {}
    assert not prepare_numpy(cpuinfo(tmp_path, vendor, flags), environment, loaded=())
    assert not environment


@pytest.mark.parametrize("text", ["", "processor : 0\nFeatures : fp asimd\n", None])
def test_where_the_processor_is_not_told_they_stay_torchs(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert not prepare_numpy(path, {}, loaded=())


def test_a_numpy_that_is_loaded_already_has_read_its_settings(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    assert not prepare_numpy(cpuinfo(tmp_path, "AuthenticAMD"), environment, loaded=("numpy",))
    assert not environment


def test_an_operators_own_number_of_threads_stays(tmp_path: Path) -> None:
    environment = {"OPENBLAS_NUM_THREADS": "4"}
    assert not prepare_numpy(cpuinfo(tmp_path, "AuthenticAMD"), environment, loaded=())
    assert environment == {"OPENBLAS_NUM_THREADS": "4"}


IN_A_NEW_PROCESS = """
import json, os, sys
import app
early = "numpy" in sys.modules
print(json.dumps([early, app.NUMPY_MULTIPLIES, os.environ.get("OPENBLAS_NUM_THREADS")]))
"""


def test_the_package_settles_it_before_anything_loads_numpy() -> None:
    unset = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS],
        capture_output=True, text=True, check=True, env=unset,
    )  # fmt: skip
    early, multiplies, threads = json.loads(done.stdout)
    assert not early
    assert multiplies == prepare_numpy(environment={}, loaded=())
    assert threads == ("1" if multiplies else None)


def test_a_name_in_no_known_letters_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = cpuinfo(tmp_path, "AuthenticAMD")
    path.write_bytes(b"model name : \xff\xfe\n" + path.read_bytes())
    assert prepare_numpy(path, {}, loaded=())
