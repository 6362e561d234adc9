"""Random scenes to render."""

from collections.abc import Callable

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at
from humansplat.structures import Cameras, Gaussians

MakeScene = Callable[..., tuple[Gaussians, Cameras]]


@pytest.fixture(scope="session")
def make_scene() -> MakeScene:
    """Builds splats in a box and cameras around it, reproducibly, in float32."""
    return _make_scene


def _make_scene(
    seed: int, num_splats: int = 120, num_cameras: int = 1, width: int = 53, height: int = 38
) -> tuple[Gaussians, Cameras]:
    """Seeds vary what stresses a rasterizer: size and shape of the splats, density, cameras amid them."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    size = 0.02 + 0.1 * (seed % 5) / 4
    stretch = 0.2 + 0.8 * (seed % 3) / 2
    opacities = uniform(0.0, 1.0, num_splats)
    splats = Gaussians(
        means=uniform(-1.0, 1.0, num_splats, 3),
        quats=torch.randn(num_splats, 4, generator=generator) * uniform(0.5, 2.0, num_splats, 1),
        scales=size * (stretch * torch.randn(num_splats, 3, generator=generator)).exp(),
        opacities=opacities.sqrt() if seed % 2 else opacities,
        colors=uniform(0.0, 1.0, num_splats, 3),
    )
    # Every fourth scene is seen from within: splats behind the camera, and beside it, where slopes are clamped.
    distance = 0.8 if seed % 4 == 3 else 3.0
    eyes = torch.nn.functional.normalize(torch.randn(num_cameras, 3, generator=generator), dim=-1) * distance
    up = torch.tensor([0.0, 1.0, 0.0])
    K = intrinsics(uniform(0.4, 1.2, 1).item(), width, height)
    K[:2, 2] += uniform(-5.0, 5.0, 2)
    cameras = Cameras(
        viewmats=look_at(eyes, torch.zeros(num_cameras, 3), up),
        Ks=K.expand(num_cameras, 3, 3).clone(),
        width=width,
        height=height,
    )
    return splats, cameras
