"""Print the peak memory, in bytes, after a sweep over few rows and after one over many, and what
keeping the inputs of the second would take. In a process of its own: a peak never goes down."""

import resource

import torch
from torch import nn

from tests.workers.test_sweeping import LINEAR, data, llama, told
from workers.language_models import find_targets
from workers.sweeping import sweep

HIDDEN, TOKENS, FEW, MANY, RANK, BATCH_TOKENS = 256, 64, 32, 1024, 8, 1024


def main() -> None:
    torch.set_num_threads(1)
    model = llama(HIDDEN)
    targets = find_targets(model, LINEAR)
    peaks = []
    for rows in (FEW, MANY):
        given = data(*[TOKENS] * rows)
        sweep(model, targets, given, RANK, told, batch_tokens=BATCH_TOKENS)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(*peaks, MANY * TOKENS // 2 * row_bytes(model))  # noqa: T201 # because the test reads it


def row_bytes(model: nn.Module) -> int:
    """Of one token's inputs of all modules, q, k and v, gate and up sharing theirs."""
    own = find_targets(model, ["q_proj", "o_proj", "gate_proj", "down_proj"])
    return sum(4 * module.weight.shape[1] for module in own.values())


if __name__ == "__main__":
    main()
