"""A small world in which a chat model has learnt to refuse: made on the spot, by real training."""
