"""The Celery worker: `celery -A workers.celery_app worker --pool prefork --concurrency 1`.

prefork, because the threads and solo pools ignore time limits and cannot cancel. torch, CUDA and
the object store are first touched in the child: a parent that touched them hangs it after the fork.
"""

import logging
import os
import socket
import threading
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import Celery
from celery.signals import (
    task_failure,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)

from app.config import Settings
from app.domain.errors import AdapterSafetyError
from app.jobs.run import end_overdue
from app.storage.events import RedisEvents
from app.storage.queue import celery_settings
from app.supervisor.launch import die_with_parent
from workers.desk import make_desk
from workers.stopping import stop_sign

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
GRACE_S = 60  # between the soft time limit, which a task can catch, and the hard one

settings = Settings()

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
    import workers.tasks

    workers.tasks.warm_up()


@worker_shutting_down.connect  # type: ignore[untyped-decorator] # because celery has no types
def _tell_children(**_: Any) -> None:
    """In the parent, at SIGTERM."""
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
    """Say every ten seconds that this worker takes jobs."""
    events = RedisEvents(settings.resolved_redis_url)
    name = f"{socket.gethostname()}:{os.getpid()}"

    def beat_for_ever() -> None:
        pause = threading.Event()
        while True:
            events.beat(name, ttl_s=3 * HEARTBEAT_S)
            pause.wait(HEARTBEAT_S)

    threading.Thread(target=beat_for_ever, name="heartbeat", daemon=True).start()
