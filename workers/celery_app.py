"""The Celery worker: `celery -A workers.celery_app worker --pool prefork --concurrency 1`.

prefork, because the threads and solo pools ignore time limits and cannot cancel. torch, CUDA and
the object store are first touched in the child: a parent that touched them hangs it after the fork.
"""

import logging
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import Celery
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    setup_logging,
    task_failure,
    task_postrun,
    task_prerun,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from app.config import Settings
from app.configured import check_traces, configure_logs, configure_traces
from app.domain.errors import AdapterSafetyError
from app.jobs.run import end_overdue
from app.observe import context, traces
from app.storage.queue import celery_settings
from app.supervisor.launch import die_with_parent
from workers import celery_logs
from workers.canary import own_name, own_queue
from workers.desk import make_desk
from workers.health import forget_health
from workers.heartbeat import Heartbeat, make_heartbeat
from workers.stopping import stop_sign

logger = logging.getLogger(__name__)

GRACE_S = 60  # between the soft time limit, which a task can catch, and the hard one

settings = Settings()
check_traces(settings)  # here, because Celery only logs what fails in a child's start
if settings.worker_port:
    from workers.exporter import prepare  # before anything else imports prometheus_client

    prepare()
heartbeat: Heartbeat | None = None  # of a worker that takes jobs, in its parent

app = Celery("adapter-safety", include=["workers.tasks"])
app.conf.update(
    celery_settings(
        settings.resolved_redis_url, visibility_timeout_s=settings.visibility_timeout_s
    ),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_soft_time_limit=settings.job_time_limit_s,
    task_time_limit=settings.job_time_limit_s + GRACE_S,
    worker_proc_alive_timeout=120.0,  # because the child imports torch before it says it is up
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_soft_shutdown_timeout=0.0,
)


@worker_process_init.connect  # type: ignore[untyped-decorator] # because celery has no types
def _start_child(**_: Any) -> None:
    """In the child, after the fork: end with the parent, and have torch ready for the first job."""
    die_with_parent()
    configure_traces(settings, "adapter-safety-worker")
    import workers.tasks

    if settings.worker_port:
        from workers.figures import count

        count()
    workers.tasks.warm_up()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator] # because celery has no types
def _end_child(**_: Any) -> None:
    """In the child: send the last spans."""
    traces.switch_off()


@celeryd_init.connect  # type: ignore[untyped-decorator] # because celery has no types
@setup_logging.connect  # type: ignore[untyped-decorator] # because celery has no types
def _configure_logs(**_: Any) -> None:
    """In the place of Celery's own, `--loglevel` included: the settings say how it is logged. At
    the very start, because Celery warns before it sets its log up."""
    configure_logs(settings, "worker", celery_logs.lift)
    celery_logs.leave_out_canaries()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator] # because celery has no types
def _set_up(instance: Any, **_: Any) -> None:
    """In the parent, before the fork: say nothing yet, listen to the worker's own queue too, and
    print nothing that is no line of the log."""
    forget_health(settings.health_dir)
    app.amqp.queues.select_add(own_queue(own_name()))
    instance.quiet = True
    celery_logs.take_stdout(app)


@task_prerun.connect  # type: ignore[untyped-decorator] # because celery has no types
def _bind(task_id: str, **_: Any) -> None:
    """In the child. A task has its job's id."""
    context.unbind_all()
    context.bind(job_id=task_id)


@task_postrun.connect  # type: ignore[untyped-decorator] # because celery has no types
def _unbind(**_: Any) -> None:
    context.unbind_all()


@worker_shutting_down.connect  # type: ignore[untyped-decorator] # because celery has no types
def _tell_children(**_: Any) -> None:
    """In the parent, at SIGTERM."""
    logger.info("told to stop: a job has %g s, then it goes back", settings.drain_s)
    stop_sign.put_up(in_s=settings.drain_s)


@task_failure.connect  # type: ignore[untyped-decorator] # because celery has no types
def _fail_overdue(task_id: str, exception: BaseException, **_: Any) -> None:
    """In the parent, which kills a child at the hard limit: that child can say nothing itself."""
    if not isinstance(exception, TimeLimitExceeded):
        return
    try:
        end_overdue(task_id, settings.job_time_limit_s, make_desk(settings))
    except AdapterSafetyError as error:  # its lease lapses, and it is tried again
        logger.warning("job %s ran over its time limit: %s", task_id, error)


@worker_ready.connect  # type: ignore[untyped-decorator] # because celery has no types
def _beat(**_: Any) -> None:
    """In the parent, from here on: look after the child, and say that this worker takes jobs."""
    global heartbeat
    heartbeat = make_heartbeat(settings, app)
    heartbeat.start()


@worker_shutdown.connect  # type: ignore[untyped-decorator] # because celery has no types
def _end(**_: Any) -> None:
    """In the parent, at its end."""
    if heartbeat is not None:
        heartbeat.stop()
