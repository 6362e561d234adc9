"""Triton's kernels against PyTorch: on a GPU, or slowly on the CPU by TRITON_INTERPRET=1."""

import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F

from humansplat.models import sv3d_blocks
from humansplat.models.sv3d_unet import ViewConditions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None
        or not (DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"),
        reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
    ),
]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


@pytest.mark.parametrize(("shape", "groups"), [((2, 96, 5, 64), 32), ((1, 320, 8, 8), 32), ((3, 40, 20, 20), 8)])
def test_group_norm_with_what_is_added_before_it(shape, groups):
    from humansplat.models import sv3d_kernels

    x = drawn(*shape).to(memory_format=torch.channels_last) + 2
    weight, bias = drawn(2, shape[1])
    for added in (None, drawn(*shape[:2]), drawn(*shape[:3])):
        whole = x if added is None else x + added[(...,) + (None,) * (4 - added.ndim)]
        expected = F.group_norm(whole, groups, weight, bias, 1e-5)
        for silu in (True, False):
            ours = sv3d_kernels.group_norm(x, groups, weight, bias, 1e-5, added, silu)
            assert ours.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(ours, F.silu(expected) if silu else expected, atol=5e-5, rtol=5e-5)


def test_layer_norm_with_the_sums_before_it():
    from humansplat.models import sv3d_kernels

    tokens, change = drawn(2, 2, 3, 5, 24)
    weight, bias = drawn(2, 24)
    for extra in (None, drawn(2, 1, 1, 24), drawn(3, 1, 24)):
        for added in (change, None):
            total = tokens + (0 if added is None else added) + (0 if extra is None else extra)
            expected = (total, F.layer_norm(total, (24,), weight, bias, 1e-5))
            ours = sv3d_kernels.sum_norm(tokens, added, extra, weight, bias, 1e-5)
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_gate_of_a_feed_forward_layer():
    from humansplat.models import sv3d_kernels

    value, gate = drawn(2, 5, 7, 12)
    torch.testing.assert_close(sv3d_kernels.gate(torch.cat([value, gate], dim=-1)), value * F.gelu(gate))


@pytest.mark.parametrize("views", [4, 5])
def test_attention_over_views(views):
    from humansplat.models import sv3d_kernels

    tensors = drawn(3, 2, views, 13, 2 * 24)  # of 13 pixels, two heads
    heads = (tensor.unflatten(-1, (2, 24)).permute(0, 2, 3, 1, 4) for tensor in tensors)
    expected = F.scaled_dot_product_attention(*heads).permute(0, 3, 1, 2, 4).flatten(3)
    torch.testing.assert_close(sv3d_kernels.attend_views(*tensors, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="the network takes the kernels on a GPU only")
def test_the_network_is_the_same_with_them(make_tiny_sv3d, monkeypatch):
    unet = make_tiny_sv3d().to(DEVICE)
    unet.channels_last()
    conditions = ViewConditions(
        image_embedding=drawn(2, 1, 16),
        photo_latent=drawn(2, 4, 8, 8),
        cond_aug=torch.zeros(2, 4, device=DEVICE),
        polar=drawn(2, 4),
        azimuth=drawn(2, 4),
    )
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        sample, level = drawn(2, 4, 4, 8, 8), torch.zeros(2, device=DEVICE)
        ours = unet(sample, level, conditions)
        monkeypatch.setattr(sv3d_blocks, "HAS_TRITON", False)
        torch.testing.assert_close(ours, unet(sample, level, conditions), atol=1e-4, rtol=1e-4)
