"""Find the person of a photo: landmarks and a coarse mask, by a few passes of the pose graph."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from humansplat.capture.graph import GRAPH_SIDE, GraphOutput, PoseGraph
from humansplat.capture.window import Window, apply, invert, resample, rotation, sample
from humansplat.errors import UserError

NUM_LANDMARKS = 33
LANDMARK_NAMES = (
    "nose",
    "left_eye_inner",
    "left_eye",
    "left_eye_outer",
    "right_eye_inner",
    "right_eye",
    "right_eye_outer",
    "left_ear",
    "right_ear",
    "mouth_left",
    "mouth_right",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_pinky",
    "right_pinky",
    "left_index",
    "right_index",
    "left_thumb",
    "right_thumb",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_heel",
    "right_heel",
    "left_foot_index",
    "right_foot_index",
)
"""MediaPipe's names; left and right are the person's own."""

# The graph's own auxiliary points: between the hips, and on the circle around the whole body.
_CENTRE, _RIM = 33, 34
# MediaPipe's graph was trained on squares this much larger than the body's circle.
_WINDOW_MARGIN = 1.25
# ... and upright; smaller leanings are left, because a level window needs no second interpolation.
_LARGEST_LEAN = math.radians(30.0)
_MIN_SCORE = 0.5
# A second person must be surer than the first: what is left after painting over the first can look like one.
_MIN_SCORE_OF_OTHERS = 0.8
_MIN_AREA_OF_OTHERS = 0.15
_MAX_OVERLAP = 0.3
_MAX_PEOPLE = 4
# Free columns narrower than this share of a person's height hold nobody.
_MIN_STRIP = 0.15
# Pixel values of an empty strip spread less than this (of 255).
_PLAIN = 6.0
# The graph is unsure of whoever does not fill its window, so doubtful windows get a closer look.
_MIN_SCORE_OF_CANDIDATES = 0.02
_NUM_CANDIDATES = 3
# Side of the reduced photo in which people are looked for, pixels.
_SEARCH_SIDE = 768
# Windows with fewer pixels show nobody clearly.
_MIN_SEARCH_WINDOW = 128
_OUTSIDE = -12.0
"""Log-odds of a pixel that no window saw."""


@dataclass(frozen=True)
class Person:
    """One person, in pixels of the photo."""

    score: float
    """The graph's probability that there is a person."""
    landmarks: Float[np.ndarray, "33 2"]
    """Photo pixels."""
    visibility: Float[np.ndarray, "33"]
    """Probability of being seen."""
    presence: Float[np.ndarray, "33"]
    """Probability of lying inside the picture."""
    world: Float[np.ndarray, "33 3"]
    """Metres from between the hips; x right, y down, z away."""
    window: Window
    """Where the graph looked last."""
    logits: Float[np.ndarray, "256 256"]
    """Log-odds of the person in ``window``."""
    next_window: Window
    """Where to look for a closer look at the same person."""

    def logits_at(
        self, to_photo: Float[np.ndarray, "2 3"], width: int, height: int
    ) -> Float[np.ndarray, "{height} {width}"]:
        """Log-odds of the person at pixels of another grid, given by its map to photo pixels."""
        to_window = invert(self.window.to_photo(GRAPH_SIDE))
        linear = to_window[:, :2] @ to_photo[:, :2]
        affine = np.concatenate([linear, apply(to_window, to_photo[:, 2][None]).T], axis=1)
        return resample(self.logits, affine, width, height, _OUTSIDE)

    @property
    def area(self) -> float:
        """Of the coarse mask, photo pixels."""
        return float((self.logits > 0).mean()) * self.window.side**2


def find_people(pixels: UInt8[np.ndarray, "h w 3"], graph: PoseGraph) -> list[Person]:
    """Find the people of a picture, the largest first.

    The whole picture is looked at, then the square around the landmarks. Others are looked for beside
    the people found, and in the picture with these painted over.

    Raises:
        UserError: If there is nobody.
    """
    reduced, scale = _reduced(pixels)
    first = _find_one(reduced, _search_windows(reduced.shape[1], reduced.shape[0]), graph, _MIN_SCORE)
    if first is None:
        raise UserError("nobody was found in the photo; use one that shows one whole person, upright and well lit")
    people = [first]
    while len(people) < _MAX_PEOPLE:
        other = _find_other(reduced, people, graph)
        if other is None:
            break
        people.append(other)
    people = [look(pixels, _scaled(person.next_window, scale), graph) for person in people]
    return sorted(people, key=lambda person: -person.area)


def look(pixels: UInt8[np.ndarray, "h w 3"], window: Window, graph: PoseGraph, *, mirrored: bool = False) -> Person:
    """Run the graph on one window.

    Args:
        pixels: The photo.
        window: Where to look.
        graph: The loaded pose graph.
        mirrored: Look at the mirrored window and turn the mask back; the landmarks stay the mirrored person's.
    """
    square, to_photo = sample(pixels, window, GRAPH_SIDE)
    if not mirrored:
        return _person(graph(square), window, to_photo)
    output = graph(square[:, ::-1])
    return _person(replace(output, mask_logits=output.mask_logits[:, ::-1]), window, to_photo)


def _person(output: GraphOutput, window: Window, to_photo: Float[np.ndarray, "2 3"]) -> Person:
    points = apply(to_photo, output.landmarks[:, :2].astype(np.float64)).astype(np.float32)
    world = output.world[:NUM_LANDMARKS].copy()
    world[:, :2] = world[:, :2] @ rotation(window.angle).T
    return Person(
        score=output.score,
        landmarks=points[:NUM_LANDMARKS],
        visibility=output.visibility[:NUM_LANDMARKS],
        presence=output.presence[:NUM_LANDMARKS],
        world=world,
        window=window,
        logits=output.mask_logits,
        next_window=_next_window(points, output.mask_logits, window, to_photo),
    )


def _next_window(
    points: Float[np.ndarray, "39 2"],
    logits: Float[np.ndarray, "256 256"],
    window: Window,
    to_photo: Float[np.ndarray, "2 3"],
) -> Window:
    """The square around the body's circle, widened to hold the mask."""
    centre, rim = points[_CENTRE], points[_RIM]
    radius = float(np.linalg.norm(rim - centre))
    lean = math.atan2(float(rim[0] - centre[0]), float(centre[1] - rim[1]))
    rows, columns = np.nonzero(logits > 0)
    if rows.size:
        inside = np.stack([columns, rows], axis=1) + 0.5
        reach = np.abs(apply(to_photo, inside.astype(np.float64)) - centre).max()
        radius = max(radius, min(float(reach) * 0.9, 1.5 * radius))
    side = max(2.0 * _WINDOW_MARGIN * radius, 0.1 * window.side)
    return Window(x=float(centre[0]), y=float(centre[1]), side=side, angle=lean if abs(lean) > _LARGEST_LEAN else 0.0)


def _find_one(
    pixels: UInt8[np.ndarray, "h w 3"], rounds: list[list[Window]], graph: PoseGraph, min_score: float
) -> Person | None:
    """The surest person of a picture; later rounds are tried only when the earlier ones show nobody."""
    for windows in rounds:
        seen = sorted((look(pixels, window, graph) for window in windows), key=lambda person: -person.score)
        for candidate in seen[:_NUM_CANDIDATES]:
            if candidate.score < _MIN_SCORE_OF_CANDIDATES:
                break
            # Someone small or off the middle is seen well only in the closer look.
            closer = look(pixels, candidate.next_window, graph)
            if closer.score < min_score:
                closer = look(pixels, closer.next_window, graph)
            if closer.score >= min_score:
                return closer
    return None


def _find_other(pixels: UInt8[np.ndarray, "h w 3"], people: list[Person], graph: PoseGraph) -> Person | None:
    """Somebody who is not among ``people`` and not much smaller than the largest of them."""
    height, width = pixels.shape[:2]
    taken = np.zeros((height, width), dtype=bool)
    for person in people:
        taken |= person.logits_at(np.eye(2, 3), width, height) > 0.0
    painted = _painted_over(pixels, taken, 0.02 * people[0].window.side)
    smallest = _MIN_AREA_OF_OTHERS * max(person.area for person in people)
    strips = [(pixels[:, start:stop], start) for start, stop in _free_strips(taken)]
    views = [(strip, start) for strip, start in strips if strip.std(axis=(0, 1)).max() > _PLAIN]
    for view, start in [*views, (painted, 0)]:
        rounds = _search_windows(view.shape[1], height)
        # A wide strip may itself hold several people, whom the graph sees only one by one.
        rounds = rounds[1:2] if view.shape[1] > height and view is not painted else rounds[:1]
        other = _find_one(np.ascontiguousarray(view), rounds, graph, _MIN_SCORE_OF_OTHERS)
        if other is None:
            continue
        guess = _moved(other, float(start))
        # Empty strips and paint can look like somebody; the picture itself must show the same person there.
        other = look(pixels, guess.next_window, graph)
        mask, guessed = (who.logits_at(np.eye(2, 3), width, height) > 0.0 for who in (other, guess))
        shared = (mask & guessed).sum()
        confirmed = other.score >= _MIN_SCORE_OF_OTHERS and shared > 0.6 * min(mask.sum(), guessed.sum())
        if confirmed and other.area >= smallest and (mask & taken).sum() < _MAX_OVERLAP * mask.sum():
            return other
    return None


def _free_strips(taken: Bool[np.ndarray, "h w"]) -> list[tuple[int, int]]:
    """Ranges of columns without anybody, wide enough for somebody."""
    labels, _ = ndimage.label(~taken.any(axis=0))
    strips = [(found[0].start, found[0].stop) for found in ndimage.find_objects(labels)]
    tallest = int(taken.any(axis=1).sum())
    return [(start, stop) for start, stop in strips if stop - start >= _MIN_STRIP * tallest]


def _moved(person: Person, x: float) -> Person:
    """The same person in a picture that begins ``x`` pixels further left."""
    return replace(
        person,
        landmarks=person.landmarks + np.array([x, 0.0], dtype=np.float32),
        window=replace(person.window, x=person.window.x + x),
        next_window=replace(person.next_window, x=person.next_window.x + x),
    )


def _search_windows(width: int, height: int) -> list[list[Window]]:
    """Squares to look at, from the whole picture to a fifth of it."""
    rounds = [[Window(x=width / 2, y=height / 2, side=float(max(width, height)))]]
    short, long = min(width, height), max(width, height)
    for side in dict.fromkeys([float(short), long / 2, long / 3, long / 5]):
        if side < _MIN_SEARCH_WINDOW:
            break
        xs, ys = _starts(float(width), side), _starts(float(height), side)
        rounds.append([Window(x=x + side / 2, y=y + side / 2, side=side) for y in ys for x in xs])
    return rounds


def _starts(length: float, side: float) -> list[float]:
    """Starts of windows that cover a length and overlap by half at least."""
    if length <= side:
        return [(length - side) / 2]
    count = math.ceil((length - side) / (side / 2)) + 1
    return [float(start) for start in np.linspace(0.0, length - side, count)]


def _painted_over(
    pixels: UInt8[np.ndarray, "h w 3"], taken: Bool[np.ndarray, "h w"], grow: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Paint a smooth continuation of the surroundings over a region, grown by ``grow`` pixels."""
    height, width = taken.shape
    inside = ndimage.distance_transform_edt(~taken) <= grow
    # A coarse grid is enough for what is smooth.
    coarse = (max(1, width // 8), max(1, height // 8))
    weight = (~inside).astype(np.float32)
    sigma = 0.5 * grow
    total = ndimage.gaussian_filter(_resized(weight, coarse), sigma) + 1e-4
    result = pixels.copy()
    for channel in range(3):
        values = pixels[..., channel].astype(np.float32)
        mean = float(values[~inside].mean()) if (~inside).any() else 128.0
        spread = ndimage.gaussian_filter(_resized(weight * (values - mean), coarse), sigma) / total + mean
        fill = _resized(spread, (width, height))
        result[..., channel] = np.where(inside, fill.clip(0, 255), values).astype(np.uint8)
    return result


def _resized(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "a b"]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _reduced(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[UInt8[np.ndarray, "a b 3"], float]:
    """The picture at most ``_SEARCH_SIDE`` px long, and how many photo pixels one of its pixels is."""
    height, width = pixels.shape[:2]
    scale = max(1.0, max(height, width) / _SEARCH_SIDE)
    if scale == 1.0:
        return pixels, 1.0
    size = (round(width / scale), round(height / scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)), scale


def _scaled(window: Window, scale: float) -> Window:
    return replace(window, x=window.x * scale, y=window.y * scale, side=window.side * scale)
