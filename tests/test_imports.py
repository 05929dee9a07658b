import gc
import json
import subprocess
import sys

import pytest

from app.imports import META_KERNELS, lasting_imports, without_meta_kernels


def test_there_is_no_looking_for_garbage_meanwhile_nor_ever_through_what_was_made() -> None:
    before = gc.get_freeze_count()
    assert gc.isenabled()
    with lasting_imports():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_failed_import_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError), lasting_imports():
        import no_such_module  # noqa: F401 # because it must fail
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with lasting_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


IN_A_NEW_PROCESS = """
import json, sys
from app.imports import META_KERNELS, without_meta_kernels
with without_meta_kernels():
    import torch
print(json.dumps([name for name in META_KERNELS if name in sys.modules]))
numbers = torch.arange(6.0).view(2, 3)
print(json.dumps((numbers @ numbers.T).tolist()))
print(json.dumps(list(torch.empty(5, 2, device="meta").T.shape)))
import torch._meta_registrations
doubled = torch.compile(lambda x: x * 2, backend="eager")
print(json.dumps(doubled(torch.ones(2)).tolist()))
print(json.dumps([hasattr(sys.modules[META_KERNELS[1]], "meta_index_Tensor")]))
"""


def test_torch_without_its_meta_kernels_computes_and_compiles_once_they_are_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [],
        [[5.0, 14.0], [14.0, 50.0]],
        [2, 5],
        [2.0, 2.0],
        [True],
    ]


IN_ANOTHER_VERSION = """
import sys
import app.imports
from app.imports import META_KERNELS, without_meta_kernels
app.imports.TESTED = "1.4."
with without_meta_kernels():
    import torch
print([name in sys.modules for name in META_KERNELS])
"""


def test_another_version_of_torch_is_imported_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_VERSION], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, True]"


def test_the_meta_kernels_stay_where_torch_is_imported_already() -> None:
    import torch  # noqa: F401 # because it must have been imported

    before = [sys.modules[name] for name in META_KERNELS]
    with without_meta_kernels():
        assert [sys.modules[name] for name in META_KERNELS] == before
    assert [sys.modules[name] for name in META_KERNELS] == before
