"""Experiments whose outcome nobody promises: they are run by hand, and their tables are in docs."""
