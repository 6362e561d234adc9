"""AdamW as every task uses it, and a step that leaves everything alone when a gradient is not finite."""

import torch
from torch import Tensor, nn

from humansplat.config import OptimConfig


def make_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW in one kernel; only matrices and kernels are decayed, not norms, biases and other vectors."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    beta1, beta2 = config.betas
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=(beta1, beta2), fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clipped_step(optimizer: torch.optim.AdamW, max_norm: float) -> tuple[Tensor, Tensor]:
    """Clip the gradient's norm and step, or do nothing at all if the norm is not finite.

    The decision is made on the device: nothing waits for it. The fused kernel reads the flag where it
    would read that of a gradient scaler.

    Returns:
        The norm before clipping and whether the step was left out, both scalars on the device.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    bad = ~torch.isfinite(norm)
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, bad


def moments(module: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's state by ``<kind>.<parameter name>``; not copies."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{kind}.{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for kind, value in state.items()
    }


def restore_moments(module: nn.Module, optimizer: torch.optim.AdamW, state: dict[str, Tensor]) -> None:
    """Put what :func:`moments` gave back, in float32 whatever it was stored in."""
    parameters = dict(module.named_parameters())
    for key, value in state.items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        optimizer.state[parameter][kind] = value.to(parameter.device, torch.float32, copy=True)
