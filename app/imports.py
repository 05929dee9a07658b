"""Importing torch: it makes very many objects that all stay, and more than some processes use."""

import gc
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

TESTED = "2.13."  # of torch; what another version's import does with its kernels is not known
META_KERNELS = ("torch.distributed._meta_registrations", "torch._meta_registrations")


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import inside the block without looking for garbage meanwhile, and never look through what
    is there at its end.

    torch's import sets the collector off hundreds of times, and the process's end once more, with
    nothing to find: `python -c "import torch"` takes 1.1 s so, and 1.7 to 2.0 s without.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def without_meta_kernels() -> Iterator[None]:
    """Import torch inside the block without its meta kernels in Python, a third of its import: they
    tell shapes where there are no numbers (fake tensors, compiling), not what a product is.

    Only for a process that runs no model: transformers, PEFT and torch's compiler find themselves
    in a circle of imports where they come first, unless `torch._meta_registrations` is imported
    before them. Does nothing where torch has been imported already, or is of another version.
    """
    if "torch" in sys.modules or not _version_of("torch").startswith(TESTED):
        yield
        return
    stand_ins = {name: ModuleType(name) for name in META_KERNELS}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            _take_away(name, stand_in)


def _version_of(package: str) -> str:
    """Empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _take_away(name: str, stand_in: ModuleType) -> None:
    """So that the next import of the name finds the module itself."""
    package, _, last = name.rpartition(".")
    del sys.modules[name]
    if vars(sys.modules.get(package, stand_in)).get(last) is stand_in:
        delattr(sys.modules[package], last)
