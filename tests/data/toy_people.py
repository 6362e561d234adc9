"""A generator of people made of three boxes; a module of its own so that worker processes can import it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh

from humansplat.data.format import Split
from humansplat.data.people_source import PersonGenerator
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody


@dataclass(frozen=True)
class ToyPerson:
    meshes: list[ShadedMesh]
    body: PosedBody
    meta: dict[str, object]


def box(
    size: tuple[float, float, float], center: tuple[float, float, float], part: int, color: np.ndarray
) -> ShadedMesh:
    shape = trimesh.creation.box(size)
    corners = np.asarray(shape.vertices) + center
    texture = np.broadcast_to(color, (8, 8, 3)).astype(np.uint8)
    texture = np.where(np.indices((8, 8)).sum(0)[..., None] % 4 < 2, texture, texture // 2)
    return ShadedMesh(
        vertices=corners,
        faces=np.asarray(shape.faces),
        uvs=corners[:, :2] % 1.0,
        texture=texture,
        parts=np.full(len(corners), part, np.uint8),
        name=f"part {part}",
    )


def make_person(seed: int, split: Split) -> ToyPerson:
    """Head, trunk and a left hand at +X."""
    rng = np.random.default_rng(seed)
    height = rng.uniform(1.4, 1.9)
    colors = rng.integers(40, 250, (3, 3))
    meshes = [
        box((0.2, 0.25, 0.2), (0.0, height - 0.125, 0.0), 15, colors[0]),
        box((0.4, height - 0.25, 0.25), (0.0, 0.5 * (height - 0.25), 0.0), 0, colors[1]),
        box((0.1, 0.1, 0.1), (0.4, 0.6 * height, 0.0), 20, colors[2]),
    ]
    vertices = torch.from_numpy(np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32))
    body = make_body(vertices, torch.from_numpy(rng.random(3, np.float32)))
    return ToyPerson(meshes=meshes, body=body, meta={"height": round(height, 6), "split": split})


def make_body(vertices: torch.Tensor, phenotypes: torch.Tensor) -> PosedBody:
    return PosedBody(
        vertices=vertices,
        joints=vertices[:4] + 0.01,
        canonical=torch.zeros(len(vertices), 3),
        faces=torch.tensor([[0, 1, 2]]),
        parts=torch.zeros(len(vertices), dtype=torch.long),
        model="toy",
        parameters={"phenotypes": phenotypes},
    )


def factory(assets: Path) -> PersonGenerator:
    """What ``synthesize`` is given; needs one file in the folder, as a stand-in for assets."""
    if not (assets / "skin.txt").is_file():
        raise UserError(f"{assets} has no skin.txt")
    return make_person


def failing_factory(assets: Path) -> PersonGenerator:
    """Every second person fails."""

    def generate(seed: int, split: Split) -> ToyPerson:
        if seed % 2:
            raise ValueError("degenerate draw")
        return make_person(seed, split)

    return generate
