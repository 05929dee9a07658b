"""The product's worker, whose hard time limit comes a second after the soft one."""

from workers.celery_app import app

__all__ = ["app"]

app.conf.task_time_limit = app.conf.task_soft_time_limit + 1
