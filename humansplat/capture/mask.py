"""The person's soft mask: from the pose graph and the picture's own edges, or from another matting model."""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from humansplat.capture.crop import Region
from humansplat.capture.graph import GRAPH_SIDE, PoseGraph, sigmoid
from humansplat.capture.landmarks import Person, look
from humansplat.capture.matting import solve_alpha
from humansplat.capture.window import rotation
from humansplat.errors import UserError

Matting = Literal["graph", "rembg"]
"""Who draws the mask."""

# Log-odds beyond this are noise.
_STRONGEST = 8.0
# The windows on the upper and the lower half: their sides and offsets, as shares of the whole window's side.
_HALVES_SIDE = 0.6
_HALVES_OFFSET = 0.22
_MIN_SCORE_OF_CLOSER_LOOKS = 0.9
# Width of the fading rim, as a share of half the window.
_RIM = 0.4
# Half-width of the band along the outline that is solved against the picture, in pixels of the graph's mask.
_BAND = 2.0
_WIDEST_BAND = 6.0
_UNSURE = (0.03, 0.97)
# How much the graph's guess counts inside the band, against the matting term's unit weight.
_PRIOR_WEIGHT = 1e-2
_SURE_WEIGHT = 1.0


def merged_logits(
    pixels: UInt8[np.ndarray, "h w 3"], person: Person, region: Region, graph: PoseGraph
) -> Float[np.ndarray, "{region.height} {region.width}"]:
    """Merge what the graph says about the person at once, in a mirror, and about each half seen closer.

    Args:
        pixels: The photo.
        person: As found.
        region: Where the log-odds are wanted.
        graph: The loaded pose graph.

    Returns:
        Log-odds of the person.
    """
    grid = (region.to_photo, region.width, region.height)
    total = person.logits_at(*grid).clip(-_STRONGEST, _STRONGEST)
    weight = np.ones_like(total)
    window = person.window
    # The long side of the body lies along the window's own vertical.
    step = rotation(window.angle) @ np.array([0.0, _HALVES_OFFSET * window.side])
    looks = [look(pixels, window, graph, mirrored=True)]
    for sign in (-1.0, 1.0):
        closer = replace(
            window, x=window.x + sign * step[0], y=window.y + sign * step[1], side=_HALVES_SIDE * window.side
        )
        looks.append(look(pixels, closer, graph))
    for seen in looks:
        if seen.score < _MIN_SCORE_OF_CLOSER_LOOKS:
            continue
        # A window sees little of what it cuts, so its say fades towards its rim; the mirror shows the whole.
        fade = 1.0 if seen is looks[0] else _fading(seen, *grid)
        total += fade * seen.logits_at(*grid).clip(-_STRONGEST, _STRONGEST)
        weight += fade
    return total / weight


def _fading(person: Person, to_photo: Float[np.ndarray, "2 3"], width: int, height: int) -> Float[np.ndarray, "a b"]:
    """1 in the middle of a person's window, 0 at its rim and beyond."""
    along = np.abs(np.linspace(-1.0, 1.0, GRAPH_SIDE, dtype=np.float32))
    inside = np.maximum(along[:, None], along)
    return replace(person, logits=((1.0 - inside) / _RIM).clip(0.0, 1.0)).logits_at(to_photo, width, height).clip(0.0)


def with_things(
    logits: Float[np.ndarray, "h w"], things: Bool[np.ndarray, "h w"], graph_pixel: float
) -> Float[np.ndarray, "h w"]:
    """Add things to a person's log-odds, and close the gap that the graph leaves around the hand."""
    if not things.any():
        return logits
    reach = max(1, round(2.0 * graph_pixel))
    both = (logits > 0.0) | things
    padded = np.pad(both, reach)
    closed = ndimage.distance_transform_edt(ndimage.distance_transform_edt(~padded) <= reach) > reach
    bridge = closed[reach:-reach, reach:-reach] & (ndimage.distance_transform_edt(~things) <= 2 * reach)
    return np.where(things | bridge, np.maximum(logits, _STRONGEST), logits)


def refine_mask(
    image: Float[np.ndarray, "h w 3"],
    logits: Float[np.ndarray, "h w"],
    graph_pixel: float,
    background: Bool[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "h w"]:
    """Draw the soft edge of a coarse mask along the edges of the picture.

    Args:
        image: sRGB in ``[0, 1]``.
        logits: Log-odds of the person at the same pixels, smooth.
        graph_pixel: How many of these pixels one pixel of the graph's mask is.
        background: Pixels that are surely background, whatever the graph says.

    Returns:
        Alpha in ``[0, 1]``.
    """
    probability = sigmoid(logits)
    if background is not None:
        probability = np.where(background, 0.0, probability).astype(np.float32)
    inside = keep_largest(probability > 0.5)
    distance = np.where(inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside))
    unsure = (probability > _UNSURE[0]) & (probability < _UNSURE[1]) & (distance < _WIDEST_BAND * graph_pixel)
    unknown = unsure | (distance < _BAND * graph_pixel)
    prior = np.where(unknown, probability, inside).astype(np.float32)
    weight = np.full_like(prior, _PRIOR_WEIGHT)
    if background is not None:
        weight[background] = _SURE_WEIGHT
    return solve_alpha(image, prior, unknown, weight)


def keep_largest(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Keep the largest connected piece, and others at least a tenth its size (a leg behind a bag)."""
    labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
    if count <= 1:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= 0.1 * sizes.max())[labels]


def rembg_mask(image: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Let ``rembg`` draw the mask; it downloads its model on first use.

    Raises:
        UserError: If ``rembg`` is not installed.
    """
    try:
        import rembg
    except ImportError as error:
        raise UserError(
            "matting 'rembg' needs the package rembg, which is not installed; run: pip install 'rembg[cpu]'"
        ) from error
    picture = Image.fromarray((image * 255.0 + 0.5).astype(np.uint8))
    mask = rembg.remove(picture, session=rembg.new_session("u2net_human_seg"), only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255.0
