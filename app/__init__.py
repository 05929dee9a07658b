"""adapter-safety."""

import os

from app.processor import prepare_numpy

__version__ = "0.1.0"  # here and nowhere else; pyproject.toml reads it

# libgomp reads this when torch is loaded. Its threads wait busily for each other between two
# operations, by default for milliseconds: beside another busy process a pass over a module took 260
# ms instead of 17. With this many turns, some 30 microseconds, it takes 47, and 17 when alone.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

NUMPY_MULTIPLIES = prepare_numpy()  # before numpy is loaded
"""Whether large float32 products are numpy's in this process, and torch's otherwise."""
