"""AdamW as every task uses it, and a step that leaves everything alone when a gradient is not finite."""

import torch
from torch import Tensor, nn

from humansplat.config import OptimConfig
from humansplat.training.sharding import assign, local, total_norm


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


class LossScale:
    """What losses are multiplied by in half precision, so that small gradients are not rounded to nothing.

    It is halved when a gradient overflows, down to 1, and doubled after ``patience`` steps without; all on the device.
    """

    def __init__(self, device: torch.device, start: float = 2.0**16, patience: int = 2000) -> None:
        self.value = torch.tensor(start, device=device)
        self._good_steps = torch.tensor(0.0, device=device)
        self._patience = patience

    def update(self, overflow: Tensor) -> Tensor:
        """Take in whether a step overflowed; tell whether no smaller scale could have helped it."""
        hopeless = overflow & (self.value <= 1)
        good_steps = torch.where(overflow, 0.0, self._good_steps + 1)
        grown = good_steps >= self._patience
        self.value = torch.where(
            overflow, (self.value / 2).clamp(min=1), torch.where(grown, 2 * self.value, self.value)
        )
        self._good_steps = torch.where(grown, 0.0, good_steps)
        return hopeless

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"value": self.value, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave."""
        device = self.value.device
        self.value, self._good_steps = state["value"].to(device), state["good_steps"].to(device)


def clipped_step(optimizer: torch.optim.AdamW, max_norm: float, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Clip the gradient's norm and step, or do nothing at all if the norm is not finite.

    The decision is made on the device: nothing waits for it. The fused kernel reads the flag where it
    would read that of a gradient scaler.

    Args:
        optimizer: Its parameters may be sharded.
        max_norm: Of the gradient, over all processes' shares.
        scale: What the loss was multiplied by, a scalar on the device.

    Returns:
        The norm before clipping and whether the step was left out, both scalars on the device.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    factor = 1.0 if scale is None else 1.0 / scale
    norm = total_norm(gradients) * factor
    bad = ~torch.isfinite(norm)
    torch._foreach_mul_([local(gradient) for gradient in gradients], factor * (max_norm / (norm + 1e-6)).clamp(max=1))
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, bad


def moments(module: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's state by ``<kind>.<parameter name>``; not copies, sharded as the parameters are."""
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
        if value.ndim == 0:
            optimizer.state[parameter][kind] = value.to(parameter.device, torch.float32, copy=True)
        else:
            optimizer.state[parameter][kind] = torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
            assign(optimizer.state[parameter][kind], value)
