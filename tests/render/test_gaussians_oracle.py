"""The CPU rasterizer against the rules written out in plain PyTorch."""

import dataclasses

import pytest
import torch
from torch import Tensor

from humansplat.render import RenderedImages, render_gaussians
from humansplat.structures import Cameras, Gaussians

# The step at alpha = 1 / 255 and the one at transmittance = 1e-4 may fall on either side in another precision;
# these are the bounds promised to users, the errors measured on these scenes are a thousand times smaller.
FRACTION_WITHIN = 0.999
TOLERANCE = 2 / 255
GRADIENT_TOLERANCE = 0.01


def render_with_gradients(
    splats: Gaussians, cameras: Cameras, backend: str, dtype: torch.dtype
) -> tuple[RenderedImages, list[Tensor]]:
    """Images, and the gradients of a random linear function of them."""
    leaves = splats.map(lambda tensor: tensor.to(dtype).requires_grad_())
    images = render_gaussians(leaves, cameras.map(lambda tensor: tensor.to(dtype)), backend=backend, far=6.0)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (output * torch.randn(output.shape, generator=generator).to(dtype)).sum()
        for output in (images.colors, images.alphas, images.depths)
    )
    fields = [leaves.means, leaves.quats, leaves.scales, leaves.opacities, leaves.colors]
    return images.detach(), list(torch.autograd.grad(loss, fields))


@pytest.mark.parametrize("seed", range(20))
def test_images_and_gradients_are_those_of_the_reference(make_scene, seed: int) -> None:
    splats, cameras = make_scene(seed, num_splats=200, width=60, height=45)
    images, gradients = render_with_gradients(splats, cameras, "cpu", torch.float32)
    true_images, true_gradients = render_with_gradients(splats, cameras, "reference", torch.float64)

    assert images.alphas.max() > 0.3  # something is seen
    for name in ("colors", "alphas"):
        error = (getattr(images, name) - getattr(true_images, name)).abs()
        assert (error <= TOLERANCE).double().mean() >= FRACTION_WITHIN, name
    depth_error = (images.depths - true_images.depths).abs()
    assert (depth_error <= TOLERANCE * true_images.depths).double().mean() >= FRACTION_WITHIN
    for name, got, true in zip(
        ("means", "quats", "scales", "opacities", "colors"), gradients, true_gradients, strict=True
    ):
        assert (got - true).norm() <= GRADIENT_TOLERANCE * true.norm(), name


def test_needles_across_the_image_reach_every_tile_they_should(make_scene) -> None:
    splats, cameras = make_scene(0, num_splats=40, width=170, height=130)
    splats = dataclasses.replace(splats, scales=torch.tensor([[0.5, 0.002, 0.002]]).expand(40, 3))
    image = render_gaussians(splats, cameras)
    true_image = render_gaussians(splats.map(lambda tensor: tensor.double()), cameras, backend="reference")
    assert (image.alphas > 0).float().mean() > 0.3
    # A tile left out by mistake would show as a block of errors of the size of a needle's alpha.
    assert (image.colors - true_image.colors).abs().max() <= 1.1 / 255


def test_the_reference_agrees_with_finite_differences(make_scene) -> None:
    splats, cameras = make_scene(0, num_splats=3, width=10, height=8)
    splats = splats.map(lambda tensor: tensor.double())
    cameras = cameras.map(lambda tensor: tensor.double())

    def colors_of(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor) -> Tensor:
        leaves = Gaussians(means=means, quats=quats, scales=scales, opacities=opacities, colors=colors)
        return render_gaussians(leaves, cameras, backend="reference").colors

    fields = [splats.means, 0.2 * splats.quats, 8 * splats.scales, splats.opacities, splats.colors]
    assert torch.autograd.gradcheck(colors_of, [field.requires_grad_() for field in fields], atol=1e-4)


def test_opaque_layers_end_a_pixel_as_in_the_reference() -> None:
    # 40 sheets of opacity 0.9999: clamped to 0.999, the second one would leave 1e-6 and is not drawn.
    num_sheets = 40
    splats = Gaussians(
        means=torch.stack([torch.zeros(num_sheets), torch.zeros(num_sheets), torch.linspace(1, 2, num_sheets)], dim=1),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(num_sheets, 4),
        scales=torch.tensor([[200.0, 200.0, 1e-4]]).expand(num_sheets, 3),
        opacities=torch.full((num_sheets,), 0.9999),
        colors=torch.rand(num_sheets, 3, generator=torch.Generator().manual_seed(0)),
    )
    K = torch.tensor([[20.0, 0.0, 10.0], [0.0, 20.0, 10.0], [0.0, 0.0, 1.0]])
    cameras = Cameras(viewmats=torch.eye(4)[None], Ks=K[None], width=20, height=20)
    images, gradients = render_with_gradients(splats, cameras, "cpu", torch.float32)
    true_images, true_gradients = render_with_gradients(splats, cameras, "reference", torch.float64)

    torch.testing.assert_close(images.alphas, torch.full_like(images.alphas, 0.999))
    torch.testing.assert_close(images.colors.double(), true_images.colors, atol=1e-5, rtol=0.0)
    for got, true in zip(gradients, true_gradients, strict=True):
        assert (got - true).norm() <= GRADIENT_TOLERANCE * true.norm().clamp(min=1e-6)
    assert (gradients[4][1:] == 0).all()  # hidden
