"""What the tokens are told before the transformer starts: those of the views, and those of the body.

Shapes: b batch, v views, g latent cells on a side, t kept tokens of a view, j body tokens, m pixels on a map's side.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from humansplat.geometry.projection import project, to_camera
from humansplat.geometry.rays import camera_rays, plucker
from humansplat.models.cells import TokenGrid, patchify, take_cells
from humansplat.models.scene import Scene, sample_image
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, PosedBody

MAP_CHANNELS = 9
"""Of a pixel of the body maps: hit, depth, thickness, normal (3), canonical position (3)."""
BODY_CHANNELS = 9
"""Of a body token beside the latent: position, normal, canonical position; with maps, also whether it is visible."""


def view_channels(grid: TokenGrid, latent_channels: int, *, photo_patches: bool, maps: bool) -> int:
    """Numbers that :func:`view_features` gives for a token."""
    pixels = (4 if photo_patches else 1) * grid.side**2
    return (latent_channels + 6) * grid.patch**2 + pixels + (MAP_CHANNELS * (grid.side // 2) ** 2 if maps else 0)


def fill_latents(
    latents: Float[Tensor, "b s c g g2"], known: Bool[Tensor, "b s"] | None, num_views: int
) -> tuple[Float[Tensor, "b v c g g2"], Float[Tensor, "b v 1"]]:
    """Latents of all views, and 1 for each that is missing.

    The silhouette from behind is the photo's mirrored, and the cloth mostly the same too, so the view from behind
    starts from the mirrored photo; other views start from nothing.

    Args:
        latents: Of the first views.
        known: Which of them count; ``None`` for all.
        num_views: ``v``.
    """
    batch, given = latents.shape[:2]
    back = back_view(num_views)
    guess = latents.new_zeros(batch, num_views, *latents.shape[2:])
    if back is not None:
        guess[:, back] = latents[:, 0].flip(-1)
    missing = torch.ones(batch, num_views, 1, device=latents.device)
    if known is None:
        missing[:, :given] = 0.0
        return torch.cat([latents, guess[:, given:]], dim=1), missing
    missing[:, :given, 0] = (~known).float()
    filled = torch.where(known[..., None, None, None], latents, guess[:, :given])
    return torch.cat([filled, guess[:, given:]], dim=1), missing


def view_features(
    latents: Float[Tensor, "b v c g g2"],
    scene: Scene,
    kept: Int[Tensor, "b v t"] | None,
    grid: TokenGrid,
    *,
    photo_patches: bool,
) -> Float[Tensor, "b v t f"]:
    """Latents, rays, the photo's mask (or all of its pixels) and the body maps of each token's cells.

    The view from behind gets the photo's mirrored, other views get none of it.
    """
    image, cameras, maps = scene.image, scene.cameras, scene.maps
    views = cameras.viewmats.shape[1]
    back = back_view(views)
    shown = image if photo_patches else image[:, 3:]
    photo = image.new_zeros(image.shape[0], views, *shown.shape[1:])
    photo[:, 0] = shown
    if back is not None:
        photo[:, back] = shown.flip(-1)

    origins, directions = camera_rays(cameras, grid.cell)
    # Rays are stated in the photo's axes, from the middle of the person.
    turn = cameras.viewmats[:, None, 0, :3, :3].mT
    offset = (origins - scene.center[:, None, None, None]).flatten(2, 3) @ turn
    rays = plucker(offset, directions.flatten(2, 3) @ turn).unflatten(2, directions.shape[2:4])
    parts = [
        (latents.movedim(2, -1), grid.patch),
        (rays, grid.patch),
        (photo.movedim(2, -1), grid.side),
    ]
    if maps is not None:
        parts.append((map_features(maps, cameras, scene.center), grid.side // 2))
    return torch.cat([take_cells(patchify(x, size).flatten(-2), kept) for x, size in parts], dim=-1)


def back_view(num_views: int) -> int | None:
    """Index of the view from behind, of views that stand evenly around the person; an odd number has none."""
    return num_views // 2 if num_views % 2 == 0 else None


def map_features(maps: BodyMaps, cameras: Cameras, center: Float[Tensor, "b 3"]) -> Float[Tensor, "b v m m c"]:
    """Body maps as network inputs: in each camera's frame, depths relative to the body's centre."""
    middle = to_camera(center[:, None, None, :].expand(-1, maps.hit.shape[1], -1, -1), cameras.viewmats)[..., 2]
    hit = maps.hit[..., None]
    depth = torch.where(hit, maps.depth[..., None] - middle[..., None, None], 0.0)
    thickness = (maps.far_depth - maps.depth)[..., None]
    rotation = cameras.viewmats[:, :, None, :3, :3]  # [b, v, 1, 3, 3]
    normals = maps.normals @ rotation.mT
    return torch.cat([hit.to(depth.dtype), depth, thickness, normals, maps.canonical], dim=-1)


def body_features(
    latents: Float[Tensor, "b c g g2"],
    scene: Scene,
    body: PosedBody,
    token_ids: Int[Tensor, " j"],
    normals: Float[Tensor, "b j 3"],
) -> Float[Tensor, "b j f"]:
    """The human tokenizer: position and the photo's latent where the vertex projects (HumanSplat, section 3.4).

    Args:
        latents: The photo's.
        scene: With maps, the tokens also know whether the photo sees them.
        body: ``[b]``.
        token_ids: Vertices that become tokens.
        normals: Theirs, world frame.
    """
    photo = scene.cameras[:, 0]
    rotation = photo.viewmats[:, :3, :3]
    points = body.vertices[:, token_ids]
    local = (points - scene.center[:, None]) @ rotation.mT
    features = [local, normals @ rotation.mT, body.canonical[token_ids].expand(len(points), -1, -1)]
    if scene.maps is not None:
        features.append(surface_visible(points, photo, scene.maps)[..., None].to(points.dtype))
    return torch.cat([*features, sample_image(latents, points, photo)], dim=-1)


def surface_visible(
    points: Float[Tensor, "b j 3"], cameras: Cameras, maps: BodyMaps, slack: float = 0.03
) -> Bool[Tensor, "b j"]:
    """Which points of the skin the photo's camera sees, by the first view's depth map.

    Args:
        points: World frame, metres.
        cameras: ``[b]``, the photo's.
        maps: ``[b, v, m, m]``; view 0 is the photo's.
        slack: How far behind the nearest surface still counts, metres.
    """
    size = maps.hit.shape[-1]
    seen = cameras.resized(size, size)
    xy, depth = project(points, seen.viewmats, seen.Ks)
    inside = ((xy >= 0) & (xy < size)).all(dim=-1)
    column, row = xy.floor().long().clamp(0, size - 1).unbind(-1)
    nearest = maps.depth[:, 0].flatten(1).gather(1, row * size + column)
    return inside & (nearest > 0) & (depth <= nearest + slack)
