"""Measurements; `make bench`."""

import os

# What is measured is the processor, and not what the machine's owner has OpenBLAS take it for.
os.environ.pop("OPENBLAS_CORETYPE", None)

import app  # noqa: F401 # because it settles how libgomp waits and numpy multiplies, first
