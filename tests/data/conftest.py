"""Small people on disk: a coloured point cloud for a body, drawn as discs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.data.format import PersonRecord, manifest_line
from humansplat.data.format import write_person as write_person_folder
from humansplat.data.people import BodyTemplate, mirrored_joints, mirrored_vertices
from humansplat.geometry.projection import intrinsics, look_at, orbit, project
from humansplat.structures import Cameras, PosedBody

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


@pytest.fixture(scope="session")
def toy_template() -> BodyTemplate:
    """The same for fixtures of a wider scope."""
    return make_template()


@pytest.fixture(scope="session")
def make_toy_person() -> Callable[..., None]:
    """The same for fixtures of a wider scope."""
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


def write_toy_person(
    root: Path,
    name: str,
    seed: int,
    num_novel: int = 3,
    size: int = SIZE,
    ring: int = 0,
    flags: tuple[str, ...] = (),
) -> None:
    """Write one person and then its line of the manifest; with ``ring`` three rings of so many views come last."""
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
    roles = ["input", *["orthogonal"] * 3, *["novel"] * num_novel]
    if ring:
        around = orbit(first, torch.zeros(3), torch.arange(ring) * (2 * torch.pi / ring) + 0.1)
        closer = torch.tensor([[1.5, 1.5, 1.0], [1.5, 1.5, 1.0], [1.0, 1.0, 1.0]])
        viewmats = torch.cat([cameras.viewmats, *[around.viewmats] * 3])
        Ks = torch.cat([cameras.Ks, around.Ks, around.Ks * closer, around.Ks * closer**2])
        cameras = Cameras(viewmats=viewmats, Ks=Ks, width=size, height=size)
        roles += [role for role in ("whole", "half", "face") for _ in range(ring)]
    colors = rng.integers(30, 226, (7, 3), dtype=np.uint8)
    body = PosedBody(
        vertices=vertices,
        joints=vertices[[0, 2, 5]],
        canonical=make_template().canonical,
        faces=make_template().faces,
        parts=make_template().parts,
        model="toy",
        parameters={
            "phenotypes": torch.rand(2, generator=generator),
            "rotations": torch.randn(3, 3, generator=generator),
            "translation": torch.randn(3, generator=generator),
        },
    )
    pictures = np.stack([draw(vertices, cameras[view], colors) for view in range(len(roles))])
    record = PersonRecord(
        images=pictures,
        parts=(pictures[..., 3] > 0).astype(np.uint8),
        cameras=cameras,
        roles=tuple(roles),
        body=body,
        meta={"split": "train", "seed": seed},
    )
    write_person_folder(root / name, record)
    with (root / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        line = json.loads(manifest_line(root / name)) | ({"flags": flags} if flags else {})
        manifest.write(json.dumps(line) + "\n")


def draw(vertices: torch.Tensor, camera: Cameras, colors: np.ndarray) -> np.ndarray:
    """Far to near, a disc a vertex."""
    xy, depth = project(vertices, camera.viewmats, camera.Ks)
    picture = np.zeros((camera.height, camera.width, 4), np.uint8)
    rows, columns = np.mgrid[: camera.height, : camera.width] + 0.5
    for i in depth.argsort(descending=True).tolist():
        near = (columns - xy[i, 0].item()) ** 2 + (rows - xy[i, 1].item()) ** 2 < 2.5**2
        picture[near] = [*colors[i], 255]
    return picture
