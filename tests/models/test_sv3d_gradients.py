"""Gradients of Triton's kernels against autograd: on a GPU, or slowly on the CPU by TRITON_INTERPRET=1."""

import importlib.util
import os
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humansplat.models import sv3d_blocks
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.training.graphs import replay_training

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None
        or not (DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"),
        reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
    ),
]
needs_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="the network takes the kernels on a GPU only")
Results = tuple[Tensor, ...]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed)).to(DEVICE)


def compare(
    ours: Callable[..., Results], plain: Callable[..., Results], inputs: list[Tensor | None], dtype: torch.dtype
) -> None:
    """Results and gradients of all inputs, by kernels, and by autograd in float64."""
    found: list[list[Tensor]] = []
    given: list[Tensor] = []
    for function, kind in ((ours, None), (plain, torch.float64)):
        own = [
            None if tensor is None else tensor.detach().to(kind or tensor.dtype).requires_grad_() for tensor in inputs
        ]
        results = function(*own)
        given = given or [drawn(*result.shape, seed=number).to(result.dtype) for number, result in enumerate(results)]
        asked = [tensor for tensor in own if tensor is not None]
        slopes = [slope.to(result.dtype) for slope, result in zip(given, results, strict=True)]
        found.append([*results, *torch.autograd.grad(results, asked, slopes)])
    close = {"atol": 2e-5, "rtol": 2e-5} if dtype == torch.float32 else {"atol": 4e-2, "rtol": 4e-2}
    types = [tensor.dtype for tensor in inputs if tensor is not None]
    for number, (mine, expected) in enumerate(zip(*found, strict=True)):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(mine.double() / scale, expected / scale, **close)
        assert mine.dtype == ([dtype] * (len(found[0]) - len(types)) + types)[number]


@DTYPES
@pytest.mark.parametrize(("shape", "groups"), [((2, 96, 5, 9), 32), ((1, 40, 3, 90), 8)])
def test_group_norm_with_what_is_added_before_it(shape, groups, dtype):
    from humansplat.models import sv3d_gradients

    weight, bias = drawn(2, shape[1])
    for added, silu in ((None, False), (drawn(*shape[:2]), True), (drawn(*shape[:3]), True)):

        def ours(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, silu: bool = silu) -> Results:
            x = x.contiguous(memory_format=torch.channels_last)
            return (sv3d_gradients.group_norm(x, groups, weight, bias, 1e-5, added, silu),)

        def plain(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, silu: bool = silu) -> Results:
            x = x if added is None else x + added[(...,) + (None,) * (4 - added.ndim)]
            normed = F.group_norm(x, groups, weight, bias, 1e-5)
            return (F.silu(normed) if silu else normed,)

        inputs = [(drawn(*shape) + 1).to(dtype), weight, bias, None if added is None else added.to(dtype)]
        compare(ours, plain, inputs, dtype)


@DTYPES
@pytest.mark.parametrize("channels", [32, 96])
def test_layer_norm_with_the_sums_before_it(channels, dtype):
    from humansplat.models import sv3d_gradients

    def ours(tokens: Tensor, weight: Tensor, bias: Tensor, change: Tensor | None, extra: Tensor | None) -> Results:
        return sv3d_gradients.sum_norm(tokens, change, extra, weight, bias, 1e-5)

    def plain(tokens: Tensor, weight: Tensor, bias: Tensor, change: Tensor | None, extra: Tensor | None) -> Results:
        total = tokens + (0 if change is None else change) + (0 if extra is None else extra)
        return total, F.layer_norm(total, (channels,), weight, bias, 1e-5)

    tokens, change = drawn(2, 2, 3, 35, channels).to(dtype)
    weight, bias = drawn(2, channels)
    for extra in (None, drawn(2, 1, 1, channels).to(dtype), drawn(3, 1, channels).to(dtype)):
        compare(ours, plain, [tokens, weight, bias, change, extra], dtype)
    compare(ours, plain, [tokens, weight, bias, None, extra], dtype)
    compare(ours, plain, [tokens, weight, bias, None, None], dtype)
    # The sum goes nowhere:
    normed = sv3d_gradients.sum_norm(tokens.requires_grad_(), change, None, weight, bias, 1e-5)[1]
    exact = tokens.detach().float().requires_grad_()  # not every device norms half precision by weights that are not
    (expected,) = torch.autograd.grad(plain(exact, weight, bias, change.float(), None)[1].sum(), exact)
    found = torch.autograd.grad(normed.sum(), tokens)[0]
    torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)


@DTYPES
def test_the_gate_of_a_feed_forward_layer(dtype):
    from humansplat.models import sv3d_gradients

    def plain(x: Tensor) -> Results:
        value, gate = x.chunk(2, dim=-1)
        return (value * F.gelu(gate),)

    compare(lambda x: (sv3d_gradients.gate(x),), plain, [drawn(3, 7, 24).to(dtype)], dtype)


@DTYPES
@pytest.mark.parametrize(("views", "width"), [(3, 16), (4, 24), (5, 64)])
def test_attention_over_views(views, width, dtype):
    from humansplat.models import sv3d_gradients

    def plain(*tensors: Tensor) -> Results:
        heads = (tensor.unflatten(-1, (2, width)).permute(0, 2, 3, 1, 4) for tensor in tensors)
        return (F.scaled_dot_product_attention(*heads).permute(0, 3, 1, 2, 4).flatten(3),)

    tensors = [drawn(2, views, 13, 2 * width, seed=seed).to(dtype) for seed in range(3)]
    compare(lambda *given: (sv3d_gradients.attend_views(*given, 2),), plain, tensors, dtype)


class Called(nn.Module):
    """A network as a step of training calls it, with tensors only."""

    def __init__(self, unet: SV3DUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, level: Tensor, *conditions: Tensor) -> Tensor:
        names = ("image_embedding", "photo_latent", "cond_aug", "polar", "azimuth")
        return self.unet(sample, level, ViewConditions(**dict(zip(names, conditions, strict=True))))


@needs_cuda
@pytest.mark.parametrize("how", ["float32", "bfloat16", "checkpoints", "graphs", "graphs in bfloat16"])
def test_the_networks_gradients_are_the_same_with_them(how, make_tiny_sv3d, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    batch = 17  # 68 pictures, with which diffusers' own networks leave channels last
    shapes = ((batch, 4, 4, 8, 8), (batch,), (batch, 1, 16), (batch, 4, 8, 8), *[(batch, 4)] * 3)
    arguments = [drawn(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    given = drawn(*shapes[0], seed=10)
    half = "bfloat16" in how
    found: list[list[Tensor]] = []
    for kernels in (True, False):
        monkeypatch.setattr(sv3d_blocks, "HAS_TRITON", kernels)
        module = Called(make_tiny_sv3d()).to(DEVICE).train().requires_grad_(True)
        if not half:  # in half precision the network lays its pictures so by itself
            module.unet.channels_last()
        if kernels and "graphs" in how:
            replay_training(module)
        if kernels and how == "checkpoints":
            module.unet.enable_gradient_checkpointing()
        with torch.autocast("cuda", torch.bfloat16, enabled=half and kernels):
            result = module(*arguments)
        result.float().backward(given)
        found.append([result.float(), *(parameter.grad for parameter in module.parameters())])
    ours, plain = (torch.cat([tensor.flatten() for tensor in tensors[1:]]) for tensors in found)
    bound = 3e-2 if half else 1e-4
    assert (found[0][0] - found[1][0]).norm() < bound * found[1][0].norm()
    assert (ours - plain).norm() < bound * plain.norm()
    if not half:
        largest = max(tensor.norm() for tensor in found[1][1:])
        for mine, expected in zip(*found, strict=True):
            assert (mine - expected).norm() < 1e-4 * (expected.norm() + 0.1 * largest)
