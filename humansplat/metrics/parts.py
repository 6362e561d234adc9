"""Boxes of body parts in a view, by which parts are compared: the head above all."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.structures import Cameras

HEAD_MARGIN = 0.2
"""Added around the box of the head's skin, as a fraction of its larger side: hair is no skin."""
MIN_HEAD_SIZE = 6
"""Pixels; boxes whose part within the picture is smaller on a side are not compared."""
MIN_SHARE = 0.5
"""Nor are boxes of which less than this share of the area lies within the picture."""


def projected_box(
    points: Float[Tensor, "*batch n 3"], cameras: Cameras, margin: float = HEAD_MARGIN
) -> Int[Tensor, "*batch v 4"]:
    """Boxes around points in each view, widened, and cut at the picture's edge.

    Args:
        points: Of a part of the true body, world frame, metres.
        cameras: ``[*batch, v]``.
        margin: Added on every side, as a fraction of the larger side.

    Returns:
        ``(left, top, right, bottom)``, pixels, right and bottom exclusive. Empty (``left == right``) where too little
        of the box lies within the picture, or a point behind the camera.
    """
    of_view = points[..., None, :, :].expand(*cameras.viewmats.shape[:-2], *points.shape[-2:])
    places, depth = project(of_view, cameras.viewmats, cameras.Ks)
    low, high = places.amin(dim=-2), places.amax(dim=-2)
    pad = margin * (high - low).amax(dim=-1, keepdim=True)
    low, high = (low - pad).floor(), (high + pad).ceil()
    size = torch.tensor([cameras.width, cameras.height], device=points.device, dtype=points.dtype)
    first, last = torch.minimum(low.clamp(min=0), size), torch.minimum(high.clamp(min=0), size)
    extent, whole = last - first, high - low
    seen = (extent.amin(dim=-1) >= MIN_HEAD_SIZE) & (extent.prod(dim=-1) >= MIN_SHARE * whole.prod(dim=-1))
    seen &= depth.amin(dim=-1) > 0
    box = torch.cat([first, last], dim=-1)
    return torch.where(seen[..., None], box, 0.0).long()
