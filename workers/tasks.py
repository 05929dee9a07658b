"""Celery's tasks: a job's id in, its state out. They may run twice; the claim decides."""

from app.imports import lasting_imports
from workers.canary import TASK_NAME
from workers.celery_app import app
from workers.health import signs


@app.task(name="adapter_safety.patch")  # type: ignore[untyped-decorator] # because celery has no types
def patch(job_id: str) -> str | None:
    """Run a patch job."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.score")  # type: ignore[untyped-decorator] # because celery has no types
def score(job_id: str) -> str | None:
    """Run a score job."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.alignment")  # type: ignore[untyped-decorator] # because celery has no types
def alignment(job_id: str) -> str | None:
    """Run an alignment job."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.safety_module")  # type: ignore[untyped-decorator] # because celery has no types
def safety_module(job_id: str) -> str | None:
    """Run a job that makes a safety module."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.salora_init")  # type: ignore[untyped-decorator] # because celery has no types
def salora_init(job_id: str) -> str | None:
    """Run a job that makes a kit."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.salora_train")  # type: ignore[untyped-decorator] # because celery has no types
def salora_train(job_id: str) -> str | None:
    """Run a training."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.salora_export")  # type: ignore[untyped-decorator] # because celery has no types
def salora_export(job_id: str) -> str | None:
    """Run a job that makes a kit's adapter an ordinary one."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.evaluate")  # type: ignore[untyped-decorator] # because celery has no types
def evaluate(job_id: str) -> str | None:
    """Run a job that measures adapters."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name="adapter_safety.frontier")  # type: ignore[untyped-decorator] # because celery has no types
def frontier(job_id: str) -> str | None:
    """Run a job that searches an adapter's settings."""
    from workers.runtime import runtime  # here, because torch must not be imported before the fork

    return runtime().run(job_id)


@app.task(name=TASK_NAME, acks_late=False)  # type: ignore[untyped-decorator] # because celery has no types
def canary() -> None:
    """The child answers. Acknowledged as it begins, because an old one is worth nothing."""
    signs.sign()


def warm_up() -> None:
    """Import what jobs need, in the child, and clear up after the one before."""
    with lasting_imports():
        from workers.runtime import runtime

    runtime().sweep()
    signs.sign()
