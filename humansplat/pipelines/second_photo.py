"""A second photo, of the person from behind: framed for the camera there, and its colours on the splats."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.capture.crop import mask_box
from humansplat.data.crops import Framing, reframe
from humansplat.geometry.projection import project
from humansplat.models.autoencoder import on_white
from humansplat.models.scene import sample_image
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians

SCALES, STEPS = 0.125, 8
"""Farthest from a box's own scale that others are tried, and how many of them on either side."""
SLACK = 0.03
"""How far behind the surface that a camera sees a splat still belongs to it, metres."""
SOFTNESS = 0.005
"""Over which that fades, metres."""


def framed_as(photo: Float[Tensor, "4 s s"], outline: Bool[Tensor, "s s"]) -> Float[Tensor, "4 s s"]:
    """A photo scaled and shifted so that its person lies on an outline as well as it can.

    Box on box first; then of scales up to an eighth larger or smaller, and all shifts up to a twentieth of the side,
    those of the largest overlap (intersection over union).

    Args:
        photo: The person, sRGB and straight alpha, anywhere in the picture.
        outline: Of the body, as the camera that the photo is framed for sees it.
    """
    size = photo.shape[-1]
    seen = torch.cat([on_white(photo), photo[3:]])[None]
    person, body = (torch.tensor(mask_box(mask.numpy())) for mask in (photo[3], outline.float()))
    (height, there), (own, middle) = (((box[3] - box[1]), (box[:2] + box[2:]) / 2) for box in (body, person))
    scales = height / own * torch.linspace(1 - SCALES, 1 + SCALES, 2 * STEPS + 1)

    def framing(scale: Float[Tensor, " n"], target: Float[Tensor, "2"]) -> Framing:
        places = [place.expand(len(scale), 2) / size for place in (middle, target)]
        return Framing(scale=scale, roll=torch.zeros_like(scale), source=places[0], target=places[1])

    masks = reframe(seen.expand(len(scales), -1, -1, -1), framing(scales, there))[:, 3]
    reach = max(1, size // 20)
    counts = F.conv2d(F.pad(masks, [reach] * 4)[:, None], outline.float()[None, None])[:, 0]  # by scale and shift
    overlaps = counts / (masks.sum(dim=(1, 2))[:, None, None] + outline.sum() - counts)
    which, row, column = torch.unravel_index(overlaps.argmax(), overlaps.shape)
    moved = reframe(seen, framing(scales[which, None], there + torch.stack([reach - column, reach - row])))[0]
    white, alpha = moved.split([3, 1])
    return torch.cat([(white - (1 - alpha)) / alpha.clamp(min=1e-3), alpha]).clamp(0, 1)


def painted(splats: Gaussians, photo: Float[Tensor, "4 s s"], camera: Cameras, first: Cameras) -> Gaussians:
    """Splats that a second photo shows, in its colours; the others as they are.

    Those are on or just below the surface that its camera sees, within the photo's person, and deeper below the one
    that the first photo's camera sees: a wrist is thin, and the front of it keeps the first photo's colours.

    Args:
        splats: ``[n]``.
        photo: The second one, sRGB and straight alpha.
        camera: Its own, unbatched.
        first: Of the first photo, unbatched.
    """
    color, alpha = photo.to(splats.means)[None].split([3, 1], dim=1)
    cameras = camera.map(lambda tensor: tensor[None].to(splats.means.device))
    color, alpha = sample_image(torch.cat([color * alpha, alpha], dim=1), splats.means[None], cameras)[0].split(
        [3, 1], 1
    )
    below, below_first = (_depth_below_surface(splats, one) for one in (camera, first))
    shown = ((SLACK - below) / SOFTNESS).sigmoid() * ((below_first - below) / SOFTNESS).sigmoid()
    return replace(splats, colors=torch.lerp(splats.colors, color / alpha.clamp(min=1e-3), alpha * shown[:, None]))


def _depth_below_surface(splats: Gaussians, camera: Cameras) -> Float[Tensor, " n"]:
    """How much farther from a camera splats are than what it sees in their place, metres."""
    cameras = camera.map(lambda tensor: tensor[None].to(splats.means.device))
    seen = render_gaussians(splats, cameras)
    depths = torch.stack([seen.depths * seen.alphas, seen.alphas], dim=1)  # beside an edge is nothing, not depth 0
    depth, coverage = sample_image(depths, splats.means[None], cameras)[0].unbind(-1)
    _, own = project(splats.means, cameras.viewmats[0], cameras.Ks[0])
    return own - depth / coverage.clamp(min=1e-3)
