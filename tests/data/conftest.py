"""Small people on disk: a coloured point cloud for a body, drawn as discs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat.data.people import BodyTemplate, mirrored_joints, mirrored_vertices
from humansplat.geometry.projection import intrinsics, look_at, orbit, project
from humansplat.structures import Cameras

SIZE = 32
JOINT_NAMES = ("root", "hand.L", "hand.R")


@pytest.fixture
def template() -> BodyTemplate:
    """What the toy people's bodies share."""
    return make_template()


@pytest.fixture
def write_person() -> Callable[..., None]:
    """``write_person(root, name, seed)`` writes a toy person's folder and its line of the manifest."""
    return write_toy_person


def make_template() -> BodyTemplate:
    """Seven vertices, symmetric; vertex 0 lies in the plane of symmetry."""
    half = torch.tensor([[0.3, 1.0, 0.1], [0.5, 1.4, 0.0], [0.2, 0.1, -0.1]])
    middle = torch.tensor([[0.0, 1.7, 0.1]])
    canonical = torch.cat([middle, half, half * torch.tensor([-1.0, 1.0, 1.0])])
    return BodyTemplate(
        canonical=canonical,
        faces=torch.tensor([[0, 1, 2], [0, 4, 5]]),
        parts=torch.arange(7),
        mirrored_vertices=mirrored_vertices(canonical),
        mirrored_joints=mirrored_joints(JOINT_NAMES),
        model="toy",
    )


def write_toy_person(root: Path, name: str, seed: int, num_novel: int = 3, size: int = SIZE) -> None:
    """Write one person and then its line of the manifest."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    vertices = make_template().canonical + 0.05 * torch.randn(7, 3, generator=generator)
    eye = torch.tensor([0.4, 1.0, 4.0])
    first = Cameras(
        viewmats=look_at(eye, torch.tensor([0.0, 0.9, 0.0]), torch.tensor([0.0, 1.0, 0.0])),
        Ks=intrinsics(0.6, size, size) + torch.tensor([[0.0, 0.5, 1.5], [0.0, 0.0, -0.5], [0.0, 0.0, 0.0]]),
        width=size,
        height=size,
    )
    azimuths = torch.cat([torch.arange(4) * torch.pi / 2, 6 * torch.rand(num_novel, generator=generator)])
    cameras = orbit(first, torch.zeros(3), azimuths)
    folder = root / name
    (folder / "images").mkdir(parents=True)
    colors = rng.integers(30, 226, (7, 3), dtype=np.uint8)
    for view in range(len(azimuths)):
        picture = draw(vertices, cameras[view], colors)
        Image.fromarray(picture).save(folder / "images" / f"{view:03d}.png")
    (folder / "cameras.json").write_text(
        json.dumps(
            {
                "width": size,
                "height": size,
                "viewmats": cameras.viewmats.tolist(),
                "Ks": cameras.Ks.tolist(),
            }
        )
    )
    np.savez(
        folder / "body.npz",
        vertices=vertices.numpy(),
        joints=vertices[[0, 2, 5]].numpy(),
        phenotypes=rng.random(2, np.float32),
        rotations=rng.normal(size=(3, 3)).astype(np.float32),
        translation=rng.normal(size=3).astype(np.float32),
    )
    with (root / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        manifest.write(json.dumps({"name": name}) + "\n")


def draw(vertices: torch.Tensor, camera: Cameras, colors: np.ndarray) -> np.ndarray:
    """Far to near, a disc a vertex."""
    xy, depth = project(vertices, camera.viewmats, camera.Ks)
    picture = np.zeros((camera.height, camera.width, 4), np.uint8)
    rows, columns = np.mgrid[: camera.height, : camera.width] + 0.5
    for i in depth.argsort(descending=True).tolist():
        near = (columns - xy[i, 0].item()) ** 2 + (rows - xy[i, 1].item()) ** 2 < 2.5**2
        picture[near] = [*colors[i], 255]
    return picture
