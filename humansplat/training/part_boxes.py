"""Where the body's parts are in pictures, and crops of them, batched and without waiting for the device.

Nothing here has a shape that depends on values: parts that are not seen keep their place, and weigh nothing.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from humansplat import draws
from humansplat.body.parts import NUM_PARTS, PART_NAMES
from humansplat.structures import Cameras, TensorStruct

CAMERA_REGIONS = (("head",), ("leftHand", "leftHandIndex1"), ("rightHand", "rightHandIndex1"))
"""Parts that are looked at through cameras of their own; a hand and its fingers share one."""
DOUBLED_PARTS = (
    *(part for region in CAMERA_REGIONS for part in region),
    "leftArm", "rightArm", "leftForeArm", "rightForeArm",
)  # fmt: skip
"""Head, hands and arms, whose weight is 2 (HumanSplat, section 4.1)."""

_IN_CAMERAS = {name for region in CAMERA_REGIONS for name in region}
REGIONS = (*CAMERA_REGIONS, *((name,) for name in PART_NAMES if name not in _IN_CAMERAS))
"""What is cropped: first what has its own cameras, then the other parts one by one."""
NUM_CAMERA_REGIONS, NUM_REGIONS = len(CAMERA_REGIONS), len(REGIONS)

MIN_SIDE = 8.0
"""Pixels of the picture that a box has at least on a side."""


class RegionBoxes(TensorStruct):
    """Square boxes around the regions of a body in pictures, in the order of :data:`REGIONS`."""

    corners: Float[Tensor, "*batch r 2"]
    """Left and top edge, pixels of the picture; the box lies within the picture."""
    sides: Float[Tensor, "*batch r"]
    """Length of a side, pixels; any number where nothing is seen."""
    weights: Float[Tensor, "*batch r"]
    """Sum of the weights of the region's parts that are seen, 0 if none is."""


def region_weights() -> Float[Tensor, "r 24"]:
    """Weight of each part in each region, 0 where it is not of the region; a constant, to be made once."""
    weights = torch.zeros(NUM_REGIONS, NUM_PARTS)
    for region, names in enumerate(REGIONS):
        for name in names:
            weights[region, PART_NAMES.index(name)] = 2.0 if name in DOUBLED_PARTS else 1.0
    return weights


def find_regions(
    part_maps: Int[Tensor, "*batch y x"],
    members: Float[Tensor, "r 24"],
    size: int,
    *,
    margin: float,
    min_pixels: int,
) -> RegionBoxes:
    """Box the parts that part maps show.

    Args:
        part_maps: 0 is the background, ``k + 1`` part ``k``; square.
        members: Of :func:`region_weights`.
        size: Side of the pictures that the boxes are for, pixels.
        margin: Added on every side, as a fraction of the larger side.
        min_pixels: Parts with fewer pixels in the map count as not seen.
    """
    device, scale = part_maps.device, size / part_maps.shape[-1]
    labels = torch.arange(1, NUM_PARTS + 1, device=device)
    shows = part_maps[..., None, :, :] == labels[:, None, None]  # [*batch, 24, y, x]
    seen = shows.sum(dim=(-2, -1)) >= min_pixels
    top, bottom = _span(shows.any(dim=-1))
    left, right = _span(shows.any(dim=-2))
    edges = torch.stack([left, top, -right, -bottom], dim=-1)  # all four are then least values
    counted = (members > 0) & seen[..., None, :]  # [*batch, r, 24]
    edges = torch.where(counted[..., None], edges[..., None, :, :], part_maps.shape[-1]).amin(dim=-2) * scale
    start, stop = edges[..., :2], -edges[..., 2:]
    sides = ((stop - start).amax(dim=-1) * (1 + 2 * margin)).clamp(MIN_SIDE, size)
    corners = (0.5 * (start + stop) - 0.5 * sides[..., None]).clamp(min=0)
    corners = torch.minimum(corners, size - sides[..., None])
    return RegionBoxes(corners=corners, sides=sides, weights=(members * seen[..., None, :]).sum(dim=-1))


def _span(flags: Bool[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """From the first to after the last true entry."""
    length = flags.shape[-1]
    places = torch.arange(length, device=flags.device, dtype=torch.float32)
    return torch.where(flags, places, length).amin(dim=-1), torch.where(flags, places + 1, 0).amax(dim=-1)


def choose(
    weights: Float[Tensor, "b n"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Draw entries among those that weigh something, each as likely as the others.

    Args:
        weights: At least 0.
        count: How many; entries of weight 0 fill up where there are too few others.
        generator: On the device of ``weights``.

    Returns:
        Places of the entries, and their weights times what makes a sum over them expect the sum over all.
    """
    if count >= weights.shape[1]:
        return torch.arange(weights.shape[1], device=weights.device).expand_as(weights), weights
    some = (weights > 0).float()
    keys = draws.uniform(generator, *weights.shape) + some
    places = keys.topk(count, dim=1).indices
    share = some.sum(dim=1, keepdim=True) / some.sum(dim=1, keepdim=True).clamp(1, count)
    return places, weights.gather(1, places) * share


def zoomed(
    cameras: Cameras, corners: Float[Tensor, "*batch 2"], sides: Float[Tensor, "*batch"], resolution: int
) -> Cameras:
    """Cameras that see but a square of what the given ones see, at a size of their own."""
    factor = resolution / sides
    shift = torch.cat([corners, torch.zeros_like(corners[..., :1])], dim=-1)  # [*batch, 3]
    x, y, w = (cameras.Ks - shift[..., None] * cameras.Ks[..., 2:, :]).split(1, dim=-2)
    Ks = torch.cat([x * factor[..., None, None], y * factor[..., None, None], w], dim=-2)
    return Cameras(viewmats=cameras.viewmats, Ks=Ks, width=resolution, height=resolution)


def resample(
    pictures: Float[Tensor, "*batch c h w"],
    corners: Float[Tensor, "*batch 2"],
    sides: Float[Tensor, "*batch"],
    resolution: int,
) -> Float[Tensor, "*batch c {resolution} {resolution}"]:
    """Square crops at another size: means of areas where it shrinks, linear interpolation where it grows.

    Two products with matrices do both exactly, for every box its own and differentiably.
    """
    height, width = pictures.shape[-2:]
    rows = _filter(corners[..., 1], sides, resolution, height)
    columns = _filter(corners[..., 0], sides, resolution, width)
    return rows[..., None, :, :] @ pictures @ columns[..., None, :, :].mT


def as_enlarged(
    crops: Float[Tensor, "*batch c r r"],
    corners: Float[Tensor, "*batch 2"],
    sides: Float[Tensor, "*batch"],
    size: int,
) -> Float[Tensor, "*batch c r r"]:
    """What a crop of more pixels than its box looks like if it goes through the picture's pixels.

    A picture's pixel is the mean over its area, and enlarging interpolates: a render at a higher resolution that is
    compared with such a crop must lose the same detail, or it would be taught to be blurred.

    Args:
        crops: Pictures of the boxes themselves.
        corners: Of the boxes, pixels of the whole picture.
        sides: Of the boxes, pixels of the whole picture.
        size: Side of the whole picture, pixels.
    """
    resolution = crops.shape[-1]
    identity = torch.eye(resolution, device=crops.device)
    grows = (sides < resolution)[..., None, None]
    matrices = []
    for start in (corners[..., 1], corners[..., 0]):
        enlarge = _filter(start, sides, resolution, size)
        # Means over the picture's pixels of what the crop has of them.
        edges = start[..., None] + sides[..., None] * torch.arange(resolution + 1, device=crops.device) / resolution
        pixels = torch.arange(size, device=crops.device)
        shrink = _overlap(pixels[:, None], pixels[:, None] + 1, edges[..., None, :-1], edges[..., None, 1:])
        shrink = shrink / shrink.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        known = (edges[..., :1] < pixels + 1) & (edges[..., -1:] > pixels)  # pixels that the crop has a part of
        enlarge = enlarge * known[..., None, :]
        enlarge = enlarge / enlarge.sum(dim=-1, keepdim=True)
        matrices.append(torch.where(grows, enlarge @ shrink, identity))
    return matrices[0][..., None, :, :] @ crops @ matrices[1][..., None, :, :].mT


def _filter(
    start: Float[Tensor, "*batch"], sides: Float[Tensor, "*batch"], resolution: int, length: int
) -> Float[Tensor, "*batch {resolution} {length}"]:
    """Weights of a picture's pixels in each pixel of a crop, along one axis; each row sums to 1.

    A window of the crop's pixel, at least one pixel wide, overlaps with the pixels: that is the mean over an area
    for wide ones, and linear interpolation for those of one pixel.
    """
    step = sides / resolution
    half = 0.5 * step.clamp(min=1)[..., None, None]
    middles = start[..., None] + step[..., None] * (torch.arange(resolution, device=start.device) + 0.5)
    pixels = torch.arange(length, device=start.device)
    weights = _overlap(middles[..., None] - half, middles[..., None] + half, pixels, pixels + 1)
    return weights / weights.sum(dim=-1, keepdim=True)


def _overlap(start: Tensor, stop: Tensor, other_start: Tensor, other_stop: Tensor) -> Tensor:
    """Length that two intervals share."""
    return (torch.minimum(stop, other_stop) - torch.maximum(start, other_start)).clamp(min=0)
