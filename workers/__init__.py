"""Celery's side: the pipeline and what runs it."""

import app  # noqa: F401 # because it sets what libgomp reads, and modules here load torch first
