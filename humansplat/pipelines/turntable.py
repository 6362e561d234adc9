"""Cameras all around a set of splats, and the pictures that they take."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians

FRAMES = 90
SIZE = 512
FPS = 30
FOV = math.radians(30.0)
FILL = 0.85
"""Largest share of the picture's side that the person takes."""
_SOLID = 0.3
"""Fainter splats do not count for the framing."""
_STRAY = 0.002
"""Share of the splats at each end that does not count either."""
_FRAMES_AT_ONCE = 4


def turntable_cameras(
    splats: Gaussians, *, frames: int = FRAMES, size: int = SIZE, start: float = 0.0, elevation: float = 0.0
) -> Cameras:
    """Cameras on a circle about the splats' vertical axis, the whole of them in every picture.

    Args:
        splats: Unbatched; +Y is up.
        frames: Number of cameras, evenly spread.
        size: Side of the square pictures, pixels.
        start: Azimuth of the first, radians: 0 on +Z, positive towards +X. The camera then moves that way.
        elevation: Radians; positive looks down.

    Raises:
        UserError: If a number makes no turntable.
    """
    if frames < 1 or size < 16:
        raise UserError(f"a turntable needs at least 1 frame of at least 16 px, got {frames} of {size} px")
    if not abs(elevation) < math.radians(85):
        raise UserError(f"an elevation of {math.degrees(elevation):.0f} degrees looks along the axis; stay within 85")
    center, height, radius = _extent(splats)
    # Each camera sees a cylinder; its near rim is the largest in the picture.
    tilted = 0.5 * height * math.cos(elevation) + radius * abs(math.sin(elevation))
    distance = max(tilted, radius) / (FILL * math.tan(FOV / 2)) + radius
    azimuths = start + torch.arange(frames) * (2 * math.pi / frames)
    flat = distance * math.cos(elevation)
    offsets = torch.stack(
        [flat * azimuths.sin(), torch.full((frames,), distance * math.sin(elevation)), flat * azimuths.cos()], dim=-1
    )
    target = center.cpu().expand(frames, 3)
    return Cameras(
        viewmats=look_at(target + offsets, target, torch.tensor([0.0, 1.0, 0.0])),
        Ks=intrinsics(FOV, size, size).expand(frames, 3, 3),
        width=size,
        height=size,
    ).to(splats.means.device)


def render_frames(splats: Gaussians, cameras: Cameras) -> Iterator[Float[Tensor, "h w 3"]]:
    """Render one camera after the other, a few at a time, before white; on the CPU."""
    for start in range(0, len(cameras.viewmats), _FRAMES_AT_ONCE):
        yield from render_gaussians(splats, cameras[start : start + _FRAMES_AT_ONCE]).colors.clamp(0, 1).cpu()


def azimuth_of(camera: Cameras) -> float:
    """Azimuth from which an unbatched camera looks, radians."""
    backward = -camera.viewmats[2, :3]
    return math.atan2(backward[0].item(), backward[2].item())


def _extent(splats: Gaussians) -> tuple[Float[Tensor, "3"], float, float]:
    """Centre, height and largest distance from the vertical axis of the solid splats, metres."""
    solid = splats.opacities > _SOLID
    points = splats.means[solid] if solid.any() else splats.means
    stray = math.floor(_STRAY * len(points))
    ordered = points.sort(dim=0).values
    low, high = ordered[stray], ordered[-1 - stray]
    center = (low + high) / 2
    reach = (points - center)[:, [0, 2]].norm(dim=-1).sort().values[-1 - stray]
    return center, (high[1] - low[1]).clamp(min=1e-3).item(), reach.clamp(min=1e-3).item()
