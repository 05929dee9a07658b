"""The heart: from `V = W_chat - W_base` to a projected `B`. torch only, no I/O of its own.

Notation is PEFT's: `W` is `(d_out, d_in)`, `A` is `(r, d_in)`, `B` is `(d_out, r)`, the update is
`dW = s * B @ A`. Safe LoRA (Hsu et al., NeurIPS 2024, arXiv 2405.16833) replaces `B` by `C B`.
"""
