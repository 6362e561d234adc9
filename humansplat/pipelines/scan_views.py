"""A scan seen from all around: pictures, and what the pose graph and the lifter say of each."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.landmarks import MIRRORED_LANDMARKS
from humansplat.body.markers import MIRRORED_MARKERS
from humansplat.capture.graph import PoseGraph
from humansplat.capture.landmarks import look
from humansplat.capture.window import Window
from humansplat.data.rig import CANONICAL_FILL, CANONICAL_FOV, framed
from humansplat.errors import UserError
from humansplat.geometry.projection import unproject
from humansplat.geometry.rays import pixel_centers
from humansplat.models.lifter import MarkerLifter
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import MeshImages, render_scene, studio_lighting
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras, LiftedMarkers, TensorStruct

NUM_VIEWS = 12
SIZE = 384
ELEVATIONS = (5.0, 20.0)
"""Degrees by which every other camera looks down; the pose graph and the lifter know such pictures."""
STEEP = ((-40.0, 4), (55.0, 4))
"""Elevations, and cameras at each, that only see the surface: soles, chin, armpits, shoulders."""
GREY = 200 / 255
"""Behind the person for the pose graph."""
KNOWN_VISIBILITY = 0.3
"""Below it the lifter is not told where the pose graph has a landmark."""
SECOND_LOOK = 0.1
"""What the look at the body's circle may be less sure than the first and still be taken: it sees more pixels."""
SOLID = 0.99
"""Opacity of a pixel that shows one surface."""
CELL = 0.008
"""Metres between outer points, about."""
MIN_FACING = 0.25
"""Cosine between the normal and the line of sight below which a pixel's depth is not used."""


class OuterPoints(TensorStruct):
    """Points of a scan's surface that are seen from outside."""

    points: Float[Tensor, "n 3"]
    """World frame, metres."""
    normals: Float[Tensor, "n 3"]
    """Unit, outwards."""


class ScanViews(TensorStruct):
    """What all views say of a scan."""

    cameras: Cameras
    outer: OuterPoints
    """The surface that is seen from outside."""
    scores: Float[Tensor, " c"]
    """How sure the pose graph is of a person."""
    lifted: LiftedMarkers
    """One row a view; crop units of the whole picture."""


def level_cameras(points: Float[np.ndarray, "n 3"], num_views: int = NUM_VIEWS, size: int = SIZE) -> Cameras:
    """Cameras all around some points, each framed as the canonical crop is."""
    step = 2 * math.pi / num_views
    return _cameras(points, [(step * index, ELEVATIONS[index % 2]) for index in range(num_views)], size)


def steep_cameras(points: Float[np.ndarray, "n 3"], size: int = SIZE) -> Cameras:
    """Cameras that look steeply up and down."""
    rings = [(elevation, 2 * math.pi * (index + 0.5) / count) for elevation, count in STEEP for index in range(count)]
    return _cameras(points, [(turn, elevation) for elevation, turn in rings], size)


def _cameras(points: Float[np.ndarray, "n 3"], places: list[tuple[float, float]], size: int) -> Cameras:
    """One camera for each azimuth in radians and elevation in degrees."""
    corners = torch.from_numpy(points.astype(np.float64))
    cameras = [
        framed(corners, turn, math.radians(elevation), CANONICAL_FOV, CANONICAL_FILL, size)
        for turn, elevation in places
    ]
    return Cameras(
        viewmats=torch.stack([camera.viewmats for camera in cameras]).float(),
        Ks=torch.stack([camera.Ks for camera in cameras]).float(),
        width=size,
        height=size,
    )


def see_scan(
    meshes: Sequence[ShadedMesh], points: Float[np.ndarray, "n 3"], graph: PoseGraph, lifter: MarkerLifter
) -> ScanViews:
    """Render a scan from all around and read every view.

    Args:
        meshes: The scan's pieces.
        points: Points spread over them.
        graph: Finds landmarks.
        lifter: Finds markers.
    """
    scene, cameras = unshadowed(meshes), level_cameras(points)
    images = render_scene(scene, cameras, samples=2)
    landmarks, visibility, scores = detect(images.rgba, graph)
    outer = merged_points([seen_points(images, cameras), _seen_steeply(scene, points)])
    return ScanViews(
        cameras=cameras,
        outer=outer,
        scores=scores,
        lifted=lift(images.rgba, landmarks, visibility, lifter),
    )


def see_surface(meshes: Sequence[ShadedMesh], points: Float[np.ndarray, "n 3"]) -> OuterPoints:
    """Only the outer surface of a scan."""
    scene, cameras = unshadowed(meshes), level_cameras(points)
    return merged_points([seen_points(render_scene(scene, cameras, samples=2), cameras), _seen_steeply(scene, points)])


def unshadowed(meshes: Sequence[ShadedMesh]) -> MeshScene:
    """A scene without shadows: nothing has to be worked out for each vertex, of which scans have half a million."""
    return MeshScene([replace(mesh, casts_shadow=False) for mesh in meshes], studio_lighting())


def _seen_steeply(scene: MeshScene, points: Float[np.ndarray, "n 3"]) -> Float[Tensor, "m 7"]:
    cameras = steep_cameras(points)
    return seen_points(render_scene(scene, cameras, samples=1), cameras)


def detect(
    rgba: Float[Tensor, "c 4 s s"], graph: PoseGraph
) -> tuple[Float[Tensor, "c 33 2"], Float[Tensor, "c 33"], Float[Tensor, " c"]]:
    """Landmarks of each picture, which holds one person: a look at all of it, then one at the body's circle."""
    mixed = rgba[:, :3] * rgba[:, 3:] + GREY * (1 - rgba[:, 3:])
    pictures = (255 * mixed).round().byte().movedim(1, -1).contiguous().numpy()
    side = pictures.shape[1]
    people = []
    for picture in pictures:
        first = look(picture, Window(x=side / 2, y=side / 2, side=float(side)), graph)
        second = look(picture, first.next_window, graph)
        people.append(max(first, second, key=lambda person: person.score + (person is second) * SECOND_LOOK))
    return (
        torch.from_numpy(np.stack([person.landmarks for person in people])),
        torch.from_numpy(np.stack([person.visibility for person in people])),
        torch.tensor([person.score for person in people]),
    )


@torch.no_grad()
def lift(
    rgba: Float[Tensor, "c 4 s s"],
    landmarks: Float[Tensor, "c 33 2"],
    visibility: Float[Tensor, "c 33"],
    lifter: MarkerLifter,
) -> LiftedMarkers:
    """Markers of each picture: the mean of a look at it and one at its mirror image."""
    size, count = int(lifter.config["image_size"]), len(rgba)
    pictures = torch.cat([rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], rgba[:, 3:]], dim=1)
    pictures = F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    known = (visibility >= KNOWN_VISIBILITY).float()[..., None]
    direct = torch.cat([landmarks / rgba.shape[-1], known], dim=-1)
    mirrored = torch.cat([1 - direct[..., :1], direct[..., 1:]], dim=-1)[:, list(MIRRORED_LANDMARKS)]
    seen = lifter(torch.cat([pictures, pictures.flip(-1)]), torch.cat([direct, mirrored]))
    return merged_looks(seen[:count], seen[count:])


def merged_looks(direct: LiftedMarkers, mirrored: LiftedMarkers) -> LiftedMarkers:
    """Mean of looks at pictures and at their mirror images; markers of the skin have no mirror image."""
    order = list(MIRRORED_MARKERS)
    points, scales = direct.points.clone(), direct.point_scales.clone()
    turned = torch.cat([1 - mirrored.points[..., :1], mirrored.points[..., 1:]], dim=-1)
    points[:, : len(order)] = (points[:, : len(order)] + turned[:, order]) / 2
    scales[:, : len(order)] = (scales[:, : len(order)] + mirrored.point_scales[:, order]) / 2
    up = direct.up + mirrored.up * mirrored.up.new_tensor([-1.0, 1.0, 1.0])
    return LiftedMarkers(
        points=points,
        point_scales=scales,
        phenotypes=(direct.phenotypes + mirrored.phenotypes) / 2,
        phenotype_scales=(direct.phenotype_scales + mirrored.phenotype_scales) / 2,
        up=F.normalize(up, dim=-1),
        up_scale=(direct.up_scale + mirrored.up_scale) / 2,
    )


def seen_points(images: MeshImages, cameras: Cameras) -> Float[Tensor, "n 7"]:
    """Place, normal, and how well the camera faces it, of every pixel that shows the surface well."""
    solid = (images.depth > 0) & (images.rgba[:, 3] > SOLID)
    pixels = pixel_centers(cameras.width, cameras.height).flatten(0, 1)
    found = []
    for index in range(len(solid)):
        camera, chosen = cameras[index], solid[index].flatten()
        points = unproject(pixels[chosen], images.depth[index].flatten()[chosen], camera.viewmats, camera.Ks)
        normals = images.normals[index].flatten(1)[:, chosen].mT
        facing = (normals * F.normalize(camera.centers - points, dim=-1)).sum(dim=-1)
        found.append(torch.cat([points, normals, facing[:, None]], dim=-1)[facing > MIN_FACING])
    return torch.cat(found)


def merged_points(seen: Sequence[Float[Tensor, "_ 7"]]) -> OuterPoints:
    """One point a cell and side, of the view that faces it best; inner layers are not in it, as no view sees them.

    Raises:
        UserError: If there is none.
    """
    together = torch.cat(list(seen))
    if not len(together):
        raise UserError(
            "no camera around the scan sees its surface; see-through materials do not count, export it solid"
        )
    together = together[together[:, -1].argsort(descending=True, stable=True)]
    cells = np.floor(together[:, :3].numpy() / CELL).astype(np.int64)
    cells -= cells.min(axis=0)
    sides = np.rint(1.5 * together[:, 3:6].numpy()).astype(np.int64) + 2  # thin things have two sides
    keys = np.ravel_multi_index((*cells.T, *sides.T), (*(cells.max(axis=0) + 1), 5, 5, 5))
    chosen = torch.from_numpy(np.unique(keys, return_index=True)[1])
    points, normals, _ = together[chosen].split([3, 3, 1], dim=-1)
    return OuterPoints(points=points, normals=F.normalize(normals, dim=-1))
