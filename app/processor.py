"""Whose float32 products are fast on this processor: torch's or numpy's.

MKL, which torch's x86-64 builds carry, computes with AVX-512 on Intel's processors only. On another
maker's numpy's OpenBLAS computes with it: 400 to 450 instead of 200 Gflop/s on two cores (Zen 5).
OpenBLAS reads the environment when numpy is loaded, so it is set before.
"""

import os
import sys
from collections.abc import Collection, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux; elsewhere nothing is known
ENOUGH = 8192  # bytes of it: the first core's
KERNELS = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}  # what OpenBLAS's ask for
INTEL = "GenuineIntel"
THREADS = "OPENBLAS_NUM_THREADS"


def prepare_numpy(
    cpuinfo: Path = CPUINFO,
    environment: MutableMapping[str, str] = os.environ,
    loaded: Collection[str] = sys.modules,
) -> bool:
    """Whether products are numpy's business from now on. Then OpenBLAS shall have one thread:
    threads of our own call it. Its own and torch's, which wait busily, were in each other's way,
    46 ms for what took 7."""
    if "numpy" in loaded or not _has_avx512_beside_intels(cpuinfo):
        return False
    return environment.setdefault(THREADS, "1") == "1"


def _has_avx512_beside_intels(cpuinfo: Path) -> bool:
    said = dict(_first_core(cpuinfo))
    is_anothers = said.get("vendor_id", INTEL) != INTEL  # which only x86's have
    return is_anothers and set(said.get("flags", "").split()) >= KERNELS


def _first_core(cpuinfo: Path) -> Iterator[tuple[str, str]]:
    with suppress(OSError), cpuinfo.open(errors="replace") as file:
        core, _, _ = file.read(ENOUGH).partition("\n\n")
        for line in core.splitlines():
            name, _, value = line.partition(":")
            yield name.strip(), value.strip()
