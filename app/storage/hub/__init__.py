"""Models and adapters of a hub: what they are by commit, and no more of them than is needed."""
