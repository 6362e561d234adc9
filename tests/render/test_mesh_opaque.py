"""Pixels drawn from their first hits against the general path, which traces layer by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch.testing import assert_close

from humansplat.geometry.projection import intrinsics, look_at
from humansplat.render.lighting import Lighting, unlit
from humansplat.render.mesh_rays import PrimaryRays, bounding_spheres, visible_pixels
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import MeshImages, ShadedMesh, render_scene
from humansplat.structures import Cameras

SIZE = 96


def cameras_around(count: int = 3, distance: float = 2.2) -> Cameras:
    angles = torch.arange(count) * 2.0 + 0.3
    eyes = distance * torch.stack([angles.sin(), 0.3 * angles.cos(), angles.cos()], dim=-1)
    viewmats = look_at(eyes, torch.zeros(count, 3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmats=viewmats, Ks=intrinsics(0.7, SIZE, SIZE).expand(count, 3, 3), width=SIZE, height=SIZE)


def even_light(rng: np.random.Generator) -> Lighting:
    environment = rng.normal(0.0, 0.15, (9, 3))
    environment[0] = rng.uniform(0.3, 1.0, 3)
    none = np.zeros((0, 3), np.float32)
    return Lighting(environment=environment.astype(np.float32), directions=none, colors=none)


def bumpy_ball(rng: np.random.Generator, radius: float, **fields: object) -> ShadedMesh:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices = np.asarray(ball.vertices) * (1 + 0.1 * np.sin(9 * np.asarray(ball.vertices)).sum(1, keepdims=True))
    mesh = ShadedMesh(
        vertices=vertices + rng.uniform(-0.2, 0.2, 3),
        faces=np.asarray(ball.faces),
        parts=rng.integers(0, 24, len(vertices), dtype=np.uint8),
        specular=float(rng.choice([0.0, 0.04, 0.3])),
        roughness=float(rng.uniform(0.1, 1.0)),
        color=tuple(rng.uniform(0.3, 1.0, 3).tolist()),
    )
    return replace(mesh, **fields)


def textured(rng: np.random.Generator, channels: int) -> dict[str, object]:
    uvs = rng.uniform(-1.0, 2.0, (60, 2))
    coarse = rng.integers(0, 256, (9, 7, channels), dtype=np.uint8)
    return {
        "uvs": uvs,
        "uv_faces": rng.integers(0, len(uvs), (5120, 3)),
        "texture": coarse.repeat(int(rng.integers(1, 20)), axis=0).repeat(8, axis=1),
    }


def scan_like(rng: np.random.Generator) -> list[ShadedMesh]:
    """Opaque pieces of every kind that a scan has, and what must be left to the general path."""
    colors = rng.integers(0, 256, (2562, 3), dtype=np.uint8)
    open_ball = bumpy_ball(rng, 0.35, two_sided=False, **textured(rng, 3))
    return [
        replace(open_ball, faces=open_ball.faces[::2], uv_faces=open_ball.uv_faces[::2]),
        bumpy_ball(rng, 0.3, vertex_colors=colors),
        bumpy_ball(rng, 0.25, **textured(rng, 4)),
        bumpy_ball(rng, 0.2),
        bumpy_ball(rng, 0.3, alpha="blend", **textured(rng, 4)),
        bumpy_ball(rng, 0.3, alpha="cutout", **textured(rng, 4)),
    ]


def general(scene: MeshScene, cameras: Cameras, monkeypatch: pytest.MonkeyPatch, samples: int) -> MeshImages:
    monkeypatch.setattr(scene, "records", None)
    pictures = render_scene(scene, cameras, samples=samples)
    monkeypatch.undo()
    return pictures


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_first_hits_give_the_picture_of_the_general_path(seed: int, samples: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng([seed, samples])
    scene = MeshScene(scan_like(rng)[: 6 if seed % 2 else 4], even_light(rng) if seed % 3 else unlit())
    fast, slow = (
        render_scene(scene, cameras_around(), samples=samples),
        general(scene, cameras_around(), monkeypatch, samples),
    )
    assert fast.rgba.any()
    assert_close(fast.rgba, slow.rgba, atol=0.5 / 255, rtol=0)
    assert_close(fast.depth, slow.depth, atol=1e-5, rtol=0)
    assert_close(fast.normals, slow.normals, atol=1e-3, rtol=0)
    assert (fast.parts != slow.parts).float().mean() < 1e-3  # two corners of equal weight


def test_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    scene = MeshScene(scan_like(np.random.default_rng(3)), unlit())
    alone = render_scene(scene, cameras_around())
    monkeypatch.setattr("humansplat.render.meshes.RAYS_A_BATCH", 999)
    shared = render_scene(scene, cameras_around(), threads=3)
    for name in ("rgba", "parts", "depth", "normals"):
        assert torch.equal(getattr(alone, name), getattr(shared, name))


@pytest.mark.parametrize("distance", [2.2, 0.5, 0.1])
def test_every_hit_lies_in_a_visible_pixel(distance: float):
    """Also with the camera among the meshes, and with faces in any order, which makes the clusters wide."""
    rng = np.random.default_rng(5)
    for shuffled in (False, True):
        scene = MeshScene(scan_like(rng)[:4], unlit())
        faces = rng.permutation(scene.arrays.faces) if shuffled else scene.arrays.faces
        spheres = bounding_spheres(scene.arrays.vertices, faces)
        for camera in (cameras_around(distance=distance)[i] for i in range(3)):
            chosen = visible_pixels(scene.arrays.vertices, faces, spheres, camera)
            assert len(np.unique(chosen)) == len(chosen)
            every = np.arange(SIZE * SIZE, dtype=np.int32)
            hits = scene.embree.run(*PrimaryRays(camera, 1).through(every))
            assert np.isin(every[hits >= 0], chosen).all()
            if distance > 1:
                assert len(chosen) < SIZE * SIZE / 2


def test_rays_run_through_their_pixels():
    camera = cameras_around()[1]
    pixel_ids = np.array([3 * SIZE + 70, 0, SIZE * SIZE - 1], np.int32)
    origins, directions = PrimaryRays(camera, 3).through(pixel_ids)
    assert_close(torch.from_numpy(origins), camera.centers.expand(27, 3))
    seen = torch.from_numpy(directions) @ camera.viewmats[:3, :3].T @ camera.Ks.T
    assert_close(seen[:, 2], torch.ones(27))
    offset = seen[:, :2].unflatten(0, (3, 9)) - torch.tensor([[70, 3], [0, 0], [SIZE - 1, SIZE - 1]])[:, None]
    for axis in range(2):  # one sample in each ninth of the pixel, along both axes
        assert_close(offset[..., axis].sort().values, ((torch.arange(9) + 0.5) / 9).expand(3, 9), atol=1e-3, rtol=0)
