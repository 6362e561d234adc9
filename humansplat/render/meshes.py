"""Pictures of textured meshes by Embree rays: anti-aliased, lit, with see-through hair."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from humansplat.render import mesh_kernels as kernels
from humansplat.render.lighting import Lighting, random_lighting, studio_lighting, unlit
from humansplat.render.mesh_opaque import shade_pixels
from humansplat.render.mesh_rays import PrimaryRays, visible_pixels
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras, TensorStruct

__all__ = ["Lighting", "MeshImages", "ShadedMesh", "random_lighting", "render_meshes", "studio_lighting", "unlit"]

MAX_LAYERS = 16
"""Hits after which the next one stops a ray, however transparent; half of them may be a surface met twice."""
RAYS_A_BATCH = 1 << 14
"""What they gather stays in the processor's cache."""


class MeshImages(TensorStruct):
    """Pictures of meshes, one a camera."""

    rgba: Float[Tensor, "c 4 h w"]
    """sRGB in ``[0, 1]`` with straight alpha; colour is 0 where alpha is."""
    parts: UInt8[Tensor, "c h w"]
    """0 is background, part label ``k`` is ``k + 1``."""
    depth: Float[Tensor, "c h w"]
    """Camera-frame depth (not distance) of the front-most surface, metres; 0 where there is none.

    A ray's depth is where half of its light is gone: fine hair does not count. A pixel's is the mean over its rays
    that hit within 5 cm of the nearest, so at an edge it lies on the surface in front, never between the two, however
    few of its rays hit: it is set wherever one ray met something half opaque, also where alpha is 0.25. Who wants the
    inner pixels only takes those of alpha 1.
    """
    normals: Float[Tensor, "c 3 h w"]
    """Unit normals towards the camera, world frame; 0 exactly where depth is. The mean over the same rays, made unit
    again; interpolated between vertices, so that close to an outline they may point a little away from the camera."""


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


def render_scene(scene: MeshScene, cameras: Cameras, *, samples: int = 2, threads: int = 1) -> MeshImages:
    """Render a scene that was built before; see :func:`render_meshes`.

    Args:
        scene: What to draw.
        cameras: One batch axis.
        samples: Rays along each side of a pixel.
        threads: That share the work; the pictures do not depend on it. One suits those who render in many processes.
    """
    count, height, width = len(cameras.viewmats), cameras.height, cameras.width
    rgba = np.zeros((count, 4, height * width), np.float32)
    parts = np.zeros((count, height * width), np.uint8)
    depth = np.zeros((count, height * width), np.float32)
    normals = np.zeros((count, 3, height * width), np.float32)
    step = max(RAYS_A_BATCH // samples**2, 1)
    with ThreadPoolExecutor(threads) as pool:
        for index in range(count):
            rays = PrimaryRays(cameras[index], samples)
            pictures = rgba[index], parts[index], depth[index], normals[index]
            pixel_ids = visible_pixels(scene.arrays.vertices, scene.arrays.faces, scene.spheres, cameras[index])
            batches = [pixel_ids[start : start + step] for start in range(0, len(pixel_ids), step)]
            run = pool.map if threads > 1 else map
            for _ in run(partial(_render_pixels, scene, rays, pictures), batches):
                pass
    return MeshImages(
        rgba=torch.from_numpy(rgba).unflatten(2, (height, width)),
        parts=torch.from_numpy(parts).unflatten(1, (height, width)),
        depth=torch.from_numpy(depth).unflatten(1, (height, width)),
        normals=torch.from_numpy(normals).unflatten(2, (height, width)),
    )


def _render_pixels(
    scene: MeshScene, rays: PrimaryRays, pictures: Sequence[np.ndarray], pixel_ids: Int32[np.ndarray, " p"]
) -> None:
    """Trace, shade and average some pixels."""
    origins, directions = rays.through(pixel_ids)
    if scene.records is not None:
        hits = scene.embree.run(origins, directions, output=True)
        unfinished = shade_pixels(
            pixel_ids, rays.num_per_pixel, hits["primID"], hits["u"], hits["v"], hits["tfar"], hits["Ng"], directions,
            scene.arrays, scene.records, scene.light, np.float32(rays.footprint), *pictures,
        )  # fmt: skip
        if not unfinished.any():
            return
        pixel_ids = pixel_ids[unfinished]
        origins, directions = rays.through(pixel_ids)
    state = _trace(scene, rays, origins, directions)
    kernels.resolve_pixels(pixel_ids, rays.num_per_pixel, state, *pictures)


def _trace(scene: MeshScene, primary: PrimaryRays, origins: np.ndarray, directions: np.ndarray) -> kernels.RayState:
    """Follow rays through all layers."""
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
        if layer:
            origins = primary.center + state.reach[rays, None] * directions[rays]
        hits = scene.embree.run(origins, directions[rays] if layer else directions, output=True)
        goes_on = kernels.shade_hits(
            scene.arrays, scene.light, rays, hits["primID"], hits["u"], hits["v"], hits["tfar"], hits["Ng"],
            directions, primary.footprint, layer == MAX_LAYERS, state,
        )  # fmt: skip
        rays = rays[goes_on]
        if not len(rays):
            break
    return state
