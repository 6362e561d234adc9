"""In which precision networks run while training."""

import torch


def autocast(device: torch.device, mixed_precision: str) -> torch.autocast:
    """Cast as a run's ``mixed_precision`` says: ``bf16``, ``fp16``, or ``no``."""
    dtype = torch.float16 if mixed_precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=mixed_precision != "no")
