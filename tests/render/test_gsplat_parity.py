"""The CPU rasterizer and the reference against gsplat's CUDA kernels."""

import pytest
import torch
from torch import Tensor

from humansplat.render import RenderedImages, render_gaussians
from humansplat.structures import Cameras, Gaussians

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat needs a CUDA device"),
]

NAMES = ("means", "quats", "scales", "opacities", "colors")


def render_with_gradients(
    splats: Gaussians, cameras: Cameras, device: str, backend: str, dtype: torch.dtype = torch.float32
) -> tuple[RenderedImages, list[Tensor]]:
    """Images, and the gradients of a random linear function of them, on the CPU."""
    leaves = splats.map(lambda tensor: tensor.to(device, dtype, copy=True).requires_grad_())
    images = render_gaussians(leaves, cameras.map(lambda tensor: tensor.to(device, dtype)), backend=backend, far=6.0)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (output * torch.randn(output.shape, generator=generator).to(output)).sum()
        for output in (images.colors, images.alphas, images.depths)
    )
    gradients = torch.autograd.grad(loss, [getattr(leaves, name) for name in NAMES])
    return images.detach().to("cpu"), [gradient.cpu() for gradient in gradients]


@pytest.mark.parametrize(("backend", "dtype"), [("cpu", torch.float32), ("reference", torch.float64)])
@pytest.mark.parametrize("seed", range(20))
def test_images_and_gradients_are_those_of_gsplat(make_scene, record_property, seed: int, backend, dtype) -> None:
    splats, cameras = make_scene(seed, num_splats=400, num_cameras=2, width=83, height=70)
    true_images, true_gradients = render_with_gradients(splats, cameras, "cuda", "gsplat")
    images, gradients = render_with_gradients(splats, cameras, "cpu", backend, dtype)

    for name in ("colors", "alphas"):
        error = (getattr(images, name) - getattr(true_images, name)).abs()
        record_property(f"{name} within 2/255", (error <= 2 / 255).double().mean().item())
        assert (error <= 2 / 255).double().mean() >= 0.999, name
    depth_error = (images.depths - true_images.depths).abs()
    assert (depth_error <= 2 / 255 * true_images.depths).double().mean() >= 0.999
    for name, got, true in zip(NAMES, gradients, true_gradients, strict=True):
        error = ((got - true).norm() / true.norm()).item()
        record_property(f"gradient of {name}, relative error", error)
        assert error <= 0.01, name


def test_cuda_tensors_take_gsplat_by_themselves_in_batches(make_scene) -> None:
    scenes = [make_scene(seed, num_cameras=3) for seed in (0, 1)]
    splats = Gaussians(**{name: torch.stack([getattr(scene, name) for scene, _ in scenes]) for name in NAMES})
    views = [cameras for _, cameras in scenes]
    cameras = Cameras(
        viewmats=torch.stack([view.viewmats for view in views]),
        Ks=torch.stack([view.Ks for view in views]),
        width=views[0].width,
        height=views[0].height,
    )
    on_gpu = render_gaussians(splats.to("cuda"), cameras.to("cuda"))
    assert on_gpu.colors.device.type == "cuda"
    on_cpu = render_gaussians(splats, cameras)
    for name in ("colors", "alphas"):
        error = (getattr(on_gpu, name).cpu() - getattr(on_cpu, name)).abs()
        assert (error <= 2 / 255).double().mean() >= 0.999, name


def test_cuda_tensors_may_be_rendered_on_the_cpu(make_scene) -> None:
    splats, cameras = make_scene(0)
    there = render_gaussians(splats.to("cuda"), cameras.to("cuda"), backend="cpu")
    assert there.colors.device.type == "cuda"
    torch.testing.assert_close(there.colors.cpu(), render_gaussians(splats, cameras).colors)


def test_nothing_to_draw_is_an_empty_picture(make_scene) -> None:
    splats, cameras = make_scene(0)
    for nothing in (splats[:0], splats.map(lambda tensor: tensor + 100)):
        image = render_gaussians(nothing.to("cuda"), cameras.to("cuda"))
        assert (image.colors == 1).all()
        assert (image.depths == 0).all()
