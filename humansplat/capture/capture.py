"""One photo of one person -> what the rest of the road starts from."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.capture.background import background_difference, sure_background
from humansplat.capture.carried import carried_things
from humansplat.capture.crop import (
    PERSON_SHARE,
    Box,
    Region,
    canonical_square,
    cut_plane,
    cut_region,
    cut_square,
    mask_box,
    working_region,
)
from humansplat.capture.foreground import estimate_foreground
from humansplat.capture.framing import missing_parts
from humansplat.capture.graph import GRAPH_SIDE, PoseGraph, default_graph
from humansplat.capture.landmarks import LANDMARK_NAMES, Person, find_people
from humansplat.capture.mask import Matting, keep_largest, merged_logits, refine_mask, rembg_mask, with_things
from humansplat.capture.photo import Photo, Picture, load_mask, load_photo
from humansplat.capture.window import apply, invert
from humansplat.errors import UserError
from humansplat.structures import TensorStruct

# The mask is drawn at this many times the resolution of the crop, so that its edge is smooth in it.
_OVERSAMPLING = 2.0
# Around the coarse mask: room for hair, and for the background that the matting compares with.
_MARGIN = 0.08
_MARGIN_OF_CARRIED = 0.4
_HANDS = [index for index, name in enumerate(LANDMARK_NAMES) if name.endswith(("wrist", "pinky", "index", "thumb"))]
# Below this a warning says so, pixels of the photo.
_SMALL_PERSON = 100
# Side of the coarse mask of the whole picture, for measuring the person, pixels.
_COARSE_SIDE = 512


class Capture(TensorStruct):
    """A person in the canonical crop: centred, the longer side of the mask's box 0.85 of the crop's side."""

    image: Float[Tensor, "3 s s"]
    """The person's own colours, sRGB in ``[0, 1]``, straight (not multiplied by the mask); white where the mask
    is 0."""
    mask: Float[Tensor, "s s"]
    """Soft, in ``[0, 1]``; 0 beyond the picture."""
    landmarks: Float[Tensor, "33 2"]
    """Crop pixels (``humansplat.capture.landmarks.LANDMARK_NAMES``)."""
    visibility: Float[Tensor, "33"]
    """Probability that a landmark is seen."""
    world_landmarks: Float[Tensor, "33 3"]
    """Metres from between the hips, in axes like the camera's: x right, y down, z away."""
    crop_to_photo: Float[Tensor, "2 3"]
    """Affine map from crop pixels to pixels of the upright photo."""
    score: float
    """The pose graph's probability that this is a person."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is doubtful."""

    def composited(self, background: float = 1.0) -> Float[Tensor, "3 s s"]:
        """The person on a plain background (white by default)."""
        return self.image * self.mask + background * (1.0 - self.mask)


def capture_person(
    photo: Picture,
    mask: Picture | None = None,
    *,
    size: int = 256,
    matting: Matting = "graph",
    carried: bool = False,
    graph: PoseGraph | None = None,
) -> Capture:
    """Find the person of a photo, cut it out and centre it.

    Args:
        photo: Whatever :func:`humansplat.capture.photo.load_photo` reads. Its own alpha, if it cuts the
            person out, is the mask.
        mask: The person's mask at the shape of the photo; wins over everything else.
        size: Side of the crop, pixels.
        matting: Who draws the mask when the photo brings none.
        carried: Also cut out what the person holds (a bag, a ball); found before plain backgrounds only.
        graph: The loaded pose graph; by default the one of this process.

    Returns:
        The capture, on the CPU.

    Raises:
        UserError: If the photo cannot be read or is smaller than 128 px; if nobody is found; if part of the
            person lies outside the picture; if the mask does not fit; or if an optional package is missing.
    """
    picture = load_photo(photo)
    given = load_mask(mask, picture) if mask is not None else picture.alpha
    pixels = picture.pixels if given is None else _on_grey(picture.pixels, given)
    graph = graph or default_graph()
    people = find_people(pixels, graph)
    box = mask_box(given) if given is not None else _coarse_box(people[0], picture)
    margin = _MARGIN_OF_CARRIED if carried else _MARGIN
    region = working_region(box, picture.width, picture.height, margin=margin, longest=_OVERSAMPLING * size)
    if given is not None:
        alpha = cut_plane(given, region)
    elif matting == "graph":
        alpha = _draw_mask(picture, people, region, graph, carried=carried)
    elif matting == "rembg":
        alpha = rembg_mask(cut_region(picture.pixels, region))
    else:
        raise UserError(f"matting {matting!r} is not known; use 'graph' or 'rembg'")
    if not (alpha >= 0.5).any():
        raise UserError(f"no clear outline of a person was found in {picture.name}; give a mask with --mask")
    _refuse_cut_person(missing_parts(people[0], alpha >= 0.5, region, pixels, graph), picture)
    if given is not None and mask is None:
        colors = _straight_colors(picture, given, alpha, region)
    else:
        colors = estimate_foreground(cut_region(picture.pixels, region), alpha)
    square = canonical_square(mask_box(alpha))
    crop_colors, crop_mask = cut_square(colors, alpha, square, size)
    crop_to_photo = _square_to_photo(square, region, size)
    warnings = _warnings(picture, len(people) if given is None else 1, size * crop_to_photo[0, 0] * PERSON_SHARE)
    return _record(people[0], crop_colors, crop_mask, crop_to_photo, warnings)


def _on_grey(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The cut-out person on a plain background: what the pose graph reads best."""
    mixed = pixels * alpha[..., None] + np.float32(200.0) * (1.0 - alpha[..., None])
    return mixed.astype(np.uint8)


def _warnings(picture: Photo, num_people: int, person_px: float) -> tuple[str, ...]:
    warnings = list(picture.warnings)
    if num_people > 1:
        warnings.append(f"{num_people} people were found in {picture.name}; the largest was taken")
    if person_px < _SMALL_PERSON:
        warnings.append(f"the person in {picture.name} is only {person_px:.0f} px tall; expect little detail")
    return tuple(warnings)


def _refuse_cut_person(missing: list[str], picture: Photo) -> None:
    if not missing:
        return
    named = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    raise UserError(
        f"the person in {picture.name} is cut off: {named} outside the picture; use a photo of the whole person"
    )


def _draw_mask(
    picture: Photo, people: list[Person], region: Region, graph: PoseGraph, *, carried: bool
) -> Float[np.ndarray, "{region.height} {region.width}"]:
    """The mask of the first of ``people``, by the graph and the picture's edges."""
    image = cut_region(picture.pixels, region)
    person = people[0]
    logits = merged_logits(picture.pixels, person, region, graph)
    for other in people[1:]:
        rival = other.logits_at(region.to_photo, region.width, region.height)
        logits = np.where(rival > np.maximum(logits, 0.0), -rival, logits)
    graph_pixel = person.window.side / GRAPH_SIDE / region.to_photo[0, 0]
    inside = keep_largest(logits > 0.0)
    difference = background_difference(image, inside)
    if difference is None:
        return refine_mask(image, logits, graph_pixel)
    background = sure_background(difference, inside, graph_pixel)
    if carried:
        hands = apply(invert(region.to_photo), person.landmarks[_HANDS].astype(np.float64))
        logits = with_things(logits, carried_things(difference, inside, hands), graph_pixel)
    return refine_mask(image, logits, graph_pixel, background)


def _straight_colors(
    picture: Photo, given: Float[np.ndarray, "h w"], alpha: Float[np.ndarray, "a b"], region: Region
) -> Float[np.ndarray, "a b 3"]:
    """The colours of a cut-out: its hidden pixels may hold any colour, so they must not reach the visible ones."""
    weighted = [cut_plane(picture.pixels[..., c] / 255.0 * given, region) for c in range(3)]
    shown = np.stack(weighted, axis=-1) / np.maximum(alpha, 1e-3)[..., None]
    filled = estimate_foreground(shown.clip(0.0, 1.0), (alpha > 0.02).astype(np.float32))
    return np.where(alpha[..., None] > 0.02, shown.clip(0.0, 1.0), filled).astype(np.float32)


def _coarse_box(person: Person, picture: Photo) -> Box:
    """The box of the graph's mask, photo pixels."""
    side = person.window.side
    x0, y0 = person.window.x - side, person.window.y - side
    # A grid that holds the window however it is turned.
    to_photo = np.array([[2 * side / _COARSE_SIDE, 0.0, x0], [0.0, 2 * side / _COARSE_SIDE, y0]])
    left, top, right, bottom = mask_box(person.logits_at(to_photo, _COARSE_SIDE, _COARSE_SIDE) + 0.5)
    corners = apply(to_photo, np.array([[left, top], [right, bottom]]))
    low = corners[0].clip(0, [picture.width - 1, picture.height - 1])
    high = corners[1].clip(low + 1, [picture.width, picture.height])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _square_to_photo(square: Box, region: Region, size: int) -> Float[np.ndarray, "2 3"]:
    to_photo = region.to_photo
    corner = apply(to_photo, np.array([[square[0], square[1]]]))[0]
    return np.concatenate([to_photo[:, :2] * (square[2] - square[0]) / size, corner[:, None]], axis=1)


def _record(
    person: Person, colors: np.ndarray, mask: np.ndarray, crop_to_photo: np.ndarray, warnings: tuple[str, ...]
) -> Capture:
    linear = np.linalg.inv(crop_to_photo[:, :2])
    landmarks = (person.landmarks - crop_to_photo[:, 2]) @ linear.T
    return Capture(
        image=torch.from_numpy(colors).movedim(-1, 0).contiguous(),
        mask=torch.from_numpy(mask),
        landmarks=torch.from_numpy(landmarks.astype(np.float32)),
        visibility=torch.from_numpy(person.visibility.copy()),
        world_landmarks=torch.from_numpy(person.world.copy()),
        crop_to_photo=torch.from_numpy(crop_to_photo.astype(np.float32)),
        score=person.score,
        warnings=warnings,
    )
