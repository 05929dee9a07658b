"""What a job may use of this machine."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Compute:
    threads: int  # of the CPU
    device: torch.device  # where models run
