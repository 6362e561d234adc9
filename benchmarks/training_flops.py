"""Model FLOPs of a training step, and the rate of matrix products that they are held against.

Counted are the products of matrices and the convolutions, two a multiplication with its addition, of the network's
forward and backward pass; nothing for norms, activations, splatting, losses or the optimizer, and nothing that is
computed a second time: neither under gradient checkpointing nor inside the backward pass of attention, whose kernels
make the scores anew (``FlopCounterMode`` counts five products there, four are needed). Windowed attention is counted
by the pairs of cells and body tokens that see each other, four products a pair and channel forward and backward as
dense attention has. The frozen autoencoder has only a forward pass and is counted apart.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from humansplat.models.layers import WindowedAttention
from humansplat.models.windowed_attention import Windows
from humansplat.models.windows import window_mask
from humansplat.structures import Gaussians
from humansplat.training.trainer import Trainer

COUNTED_PEOPLE = 2


class ModelFlops(NamedTuple):
    """Of one sample."""

    network: float
    """Forward and backward, windowed attention included."""
    windows: float
    """Of that, windowed attention."""
    attention: float
    """Of that, attention over all pairs."""
    encoder: float
    """Of the frozen autoencoder."""


def matrix_rate(device: torch.device, size: int) -> float:
    """Products of square bfloat16 matrices, FLOPs a second: the median of 30."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    times = []
    for _ in range(40):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            left @ right
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        else:
            start = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - start)
    return 2 * size**3 / sorted(times[10:])[15]


class _Recorder(nn.Module):
    """Stands for the network and keeps what it was called with."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.arguments: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def forward(self, *arguments: Any, **named: Any) -> Gaussians | Tensor:
        self.arguments, self.named = arguments, named
        return self.module(*arguments, **named)


def autoencoders(trainer: Trainer) -> list[AutoencoderKL]:
    """The frozen autoencoders of a task."""
    frozen = trainer.task.frozen_modules()
    return [part for module in frozen for part in module.modules() if isinstance(part, AutoencoderKL)]


@contextlib.contextmanager
def around_encoding(
    trainer: Trainer,
    before: Callable[[Tensor], object] = lambda pictures: None,
    after: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Within the block something is done before and after pictures are encoded; hooks would be compiled away."""
    found = autoencoders(trainer)
    for autoencoder in found:

        def encode(pictures: Tensor, *, own: Callable[[Tensor], object] = autoencoder.encode) -> object:
            before(pictures)
            encoded = own(pictures)
            after()
            return encoded

        autoencoder.encode = encode
    try:
        yield
    finally:
        for autoencoder in found:
            del autoencoder.encode


def count(
    trainer: Trainer,
    autocast: Callable[[], contextlib.AbstractContextManager[object]],
    people: int = COUNTED_PEOPLE,
) -> ModelFlops:
    """Count by a step of a few people, eager and without checkpointing; what takes no gradients has no products."""
    task, module = trainer.task, trainer.module
    recorder = _Recorder(module)
    encoded: list[Tensor] = []
    windows: list[tuple[Windows, int]] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs: windows.append((inputs[2], inputs[0].shape[-1])))
        for part in module.modules()
        if isinstance(part, WindowedAttention)
    ]
    generator = torch.Generator(trainer.accelerator.device).manual_seed(0)
    batch = task.sample(trainer.train_pool, people, generator)
    with torch.no_grad(), autocast(), around_encoding(trainer, before=encoded.append):
        task.training_loss(recorder, batch, generator, 0)
    for hook in hooks:
        hook.remove()
    # The counter knows the GPU's fused attention only; the CPU's is small enough to be spelled out.
    fused = sdpa_kernel(SDPBackend.MATH) if batch.images.device.type == "cpu" else contextlib.nullcontext()
    with fused, FlopCounterMode(display=False) as counter:
        with autocast():
            total = _sum(recorder(*recorder.arguments, **recorder.named))
        total.backward()
    for parameter in module.parameters():
        parameter.grad = None
    dense, attention = 0.0, 0.0
    for operation, flops in counter.get_flop_counts()["Global"].items():
        name = str(operation)
        if "attention" not in name:
            dense += flops
        else:
            attention += flops * (0.8 if "backward" in name else 1.0)
    windowed = sum(3 * 4 * _num_pairs(plan) * width for plan, width in windows if plan.sorted is not None)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), autocast():
        for pictures in encoded:
            autoencoders(trainer)[0].encode(pictures)
    encoder = counter.get_total_flops()
    parts = (dense + attention + windowed, windowed, attention, encoder)
    return ModelFlops(*(part / people for part in parts))


def _sum(output: Gaussians | Tensor) -> Tensor:
    """Of all that a network gives."""
    if isinstance(output, Tensor):
        return output.sum()
    return sum(getattr(output, name).sum() for name in ("means", "quats", "scales", "opacities", "colors"))  # type: ignore[return-value]


def _num_pairs(plan: Windows) -> int:
    """Pairs of cells and tokens that see each other, over batch and views; waits for the device."""
    ordered = plan.sorted
    assert ordered is not None
    places = torch.arange(ordered.token_positions.shape[2], device=ordered.cells.device)
    inside = places < ordered.bin_start[..., -1:]
    return int(window_mask(ordered.cells, ordered.token_positions, inside, ordered.window).sum())
