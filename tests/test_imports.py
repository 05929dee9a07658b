import gc

import pytest

from app.imports import lasting_imports


def test_there_is_no_looking_for_garbage_meanwhile_nor_ever_through_what_was_made() -> None:
    before = gc.get_freeze_count()
    assert gc.isenabled()
    with lasting_imports():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
    gc.unfreeze()


def test_a_failed_import_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError), lasting_imports():
        import no_such_module  # noqa: F401 # because it must fail
    assert gc.isenabled()
    gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with lasting_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
