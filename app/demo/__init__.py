"""`adapter-safety demo`: a tiny world made on the spot, patched through the real service."""
