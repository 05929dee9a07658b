"""HTTP only: routes parse, call a use case and map its answer."""
