"""Pictures of textured meshes by Embree rays: anti-aliased, lit, with see-through hair."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, UInt8
from torch import Tensor

from humansplat.render import mesh_kernels as kernels
from humansplat.render.lighting import Lighting, random_lighting, studio_lighting, unlit
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras, TensorStruct

__all__ = ["Lighting", "MeshImages", "ShadedMesh", "random_lighting", "render_meshes", "studio_lighting", "unlit"]

TILE = 8
MAX_LAYERS = 16
"""Hits after which the next one stops a ray, however transparent; half of them may be a surface met twice."""
RAYS_A_BATCH = 1 << 20


class MeshImages(TensorStruct):
    """Pictures of meshes, one a camera."""

    rgba: Float[Tensor, "c 4 h w"]
    """sRGB in ``[0, 1]`` with straight alpha; colour is 0 where alpha is."""
    parts: UInt8[Tensor, "c h w"]
    """0 is background, part label ``k`` is ``k + 1``."""
    depth: Float[Tensor, "c h w"]
    """Camera-frame depth of the front-most surface, metres; 0 where there is none."""
    normals: Float[Tensor, "c 3 h w"]
    """Unit normals towards the camera, world frame; 0 where there is no surface."""


def render_meshes(
    meshes: Sequence[ShadedMesh],
    cameras: Cameras,
    lighting: Lighting | None = None,
    *,
    samples: int = 2,
) -> MeshImages:
    """Render textured meshes from every camera.

    Args:
        meshes: The pieces of a person; they hide and shade each other.
        cameras: One batch axis.
        lighting: The light; a bright studio by default.
        samples: Rays along each side of a pixel: ``samples ** 2`` a pixel.

    Raises:
        ValueError: If there is nothing to render or the cameras have another number of batch axes.
    """
    if cameras.viewmats.ndim != 3:
        raise ValueError(f"render_meshes needs one axis of cameras, got {tuple(cameras.viewmats.shape[:-2])}")
    return render_scene(MeshScene(meshes, lighting or studio_lighting()), cameras, samples=samples)


def render_scene(scene: MeshScene, cameras: Cameras, *, samples: int = 2) -> MeshImages:
    """Render a scene that was built before; see :func:`render_meshes`."""
    count, height, width = len(cameras.viewmats), cameras.height, cameras.width
    rgba = np.zeros((count, height * width, 4), np.float32)
    parts = np.zeros((count, height * width), np.uint8)
    depth = np.zeros((count, height * width), np.float32)
    normals = np.zeros((count, height * width, 3), np.float32)
    for index in range(count):
        camera = cameras[index]
        pixel_ids, directions = primary_rays(scene, camera, samples)
        center = camera.centers.detach().cpu().numpy().astype(np.float32)
        footprint = 2.0 / (float(camera.Ks[0, 0] + camera.Ks[1, 1]) * samples)
        step = max(RAYS_A_BATCH // samples**2, 1)
        for start in range(0, len(pixel_ids), step):
            chunk = slice(start * samples**2, (start + step) * samples**2)
            state = _trace(scene, center, directions[chunk], footprint)
            kernels.resolve_pixels(
                pixel_ids[start : start + step],
                samples**2,
                state,
                rgba[index],
                parts[index],
                depth[index],
                normals[index],
            )
    return MeshImages(
        rgba=torch.from_numpy(rgba).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous(),
        parts=torch.from_numpy(parts).unflatten(1, (height, width)),
        depth=torch.from_numpy(depth).unflatten(1, (height, width)),
        normals=torch.from_numpy(normals).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous(),
    )


def primary_rays(
    scene: MeshScene, camera: Cameras, samples: int
) -> tuple[Int32[np.ndarray, " p"], Float32[np.ndarray, "n 3"]]:
    """Rays through the pixels near the meshes; the rest of the picture is empty without asking Embree.

    Args:
        scene: What to look at.
        camera: Without batch axes.
        samples: Rays along each side of a pixel.

    Returns:
        Numbers of the pixels (``row * width + column``), and for each pixel ``samples ** 2`` directions, one after
        the other, world frame, of unit camera-frame depth.
    """
    viewmat, K = camera.viewmats.detach().cpu().double().numpy(), camera.Ks.detach().cpu().double().numpy()
    width, height, rotation = camera.width, camera.height, viewmat[:3, :3]
    cam = scene.arrays.vertices @ rotation.T.astype(np.float32) + viewmat[:3, 3].astype(np.float32)
    depths = np.ascontiguousarray(cam[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (cam @ K.T.astype(np.float32))[:, :2] / depths[:, None]
    marked = np.zeros((-(-height // TILE), -(-width // TILE)), np.bool_)
    kernels.mark_tiles(pixels, depths, scene.arrays.faces, TILE, marked)
    capacity = int(marked.sum()) * TILE**2
    pixel_ids = np.empty(capacity, np.int32)
    directions = np.empty((capacity * samples**2, 3), np.float32)
    world_from_pixel = np.ascontiguousarray(rotation.T @ np.linalg.inv(K))
    used = kernels.tile_rays(marked, TILE, width, height, samples, world_from_pixel, pixel_ids, directions)
    return pixel_ids[:used], directions[: used * samples**2]


def _trace(scene: MeshScene, center: np.ndarray, directions: np.ndarray, footprint: float) -> kernels.RayState:
    """Follow rays from one camera through all layers."""
    count = len(directions)
    state = kernels.RayState(
        reach=np.zeros(count, np.float32),
        through=np.ones(count, np.float32),
        face=np.full(count, -1, np.int32),
        color=np.zeros((count, 3), np.float32),
        depth=np.zeros(count, np.float32),
        label=np.zeros(count, np.uint8),
        normal=np.zeros((count, 3), np.float32),
    )
    rays = np.arange(count)
    for layer in range(MAX_LAYERS + 1):
        ahead = directions[rays] if layer else directions
        starts = center + state.reach[rays, None] * ahead
        hits = scene.embree.run(starts, ahead, output=True)
        goes_on = kernels.shade_hits(
            scene.arrays, scene.light, rays, hits["primID"], hits["u"], hits["v"], hits["tfar"], hits["Ng"],
            directions, footprint, layer == MAX_LAYERS, state,
        )  # fmt: skip
        rays = rays[goes_on]
        if not len(rays):
            break
    return state
