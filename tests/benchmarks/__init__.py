"""Measurements; `make bench`."""

import app  # noqa: F401 # because it sets what libgomp reads, and modules here load torch first
