"""Is the whole person in the picture? If not, say which part is missing."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from humansplat.capture.crop import Region
from humansplat.capture.graph import PoseGraph
from humansplat.capture.landmarks import LANDMARK_NAMES, Person, look

# All lengths below are shares of the longer side of the person's box.
# Landmarks may leave the picture by this much before they count: fingertips are uncertain, soles less so.
_SLACK = 0.02
_SLACK_OF_FEET = 0.008
_MIN_PRESENCE = 0.5
# The mask touches the picture's edge for a cut only over more than this; limbs are thicker.
_MIN_CONTACT = 0.018
# Hair and hats are flat on top.
_MIN_CONTACT_OF_HEAD = 0.06
# A foot that merely stands on the edge touches it over less than this.
_MAX_SOLE = 0.17
# A round shape that touches the edge without being cut widens inwards by more than this over this depth.
_DEPTH = 0.006
_MAX_WIDENING = 1.6

# A part is named only when no part that contains it is missing as well.
_PARTS = {
    "head": ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    "left leg": ("left_knee",),
    "right leg": ("right_knee",),
    "left foot": ("left_ankle", "left_heel", "left_foot_index"),
    "right foot": ("right_ankle", "right_heel", "right_foot_index"),
    "left arm": ("left_shoulder", "left_elbow"),
    "right arm": ("right_shoulder", "right_elbow"),
    "left hand": ("left_wrist", "left_index", "left_pinky", "left_thumb"),
    "right hand": ("right_wrist", "right_index", "right_pinky", "right_thumb"),
}
_CONTAINS = {"left foot": "left leg", "right foot": "right leg", "left hand": "left arm", "right hand": "right arm"}
_PLURALS = {"leg": "legs", "foot": "feet", "arm": "arms", "hand": "hands"}


@dataclass(frozen=True)
class Contact:
    """A stretch of the picture's edge that the person's mask touches."""

    edge: str
    """left, top, right or bottom."""
    x: float
    """Middle of the stretch, photo pixels."""
    y: float
    """Middle of the stretch, photo pixels."""
    length: float
    """Share of the person's length."""
    widening: float
    """How much wider the mask is a little further inside."""


def missing_parts(
    person: Person,
    mask: Bool[np.ndarray, "h w"],
    region: Region,
    pixels: UInt8[np.ndarray, "photo_h photo_w 3"],
    graph: PoseGraph,
) -> list[str]:
    """Name the parts of a person that lie outside the picture.

    The graph draws landmarks that it does not see inside the picture rather than beyond it, so where the
    mask touches an edge, the graph also looks once through a window that reaches far beyond that edge.

    Args:
        person: As found.
        mask: The person, at the pixels of ``region``.
        region: Part of the photo that holds the whole person.
        pixels: The photo.
        graph: The loaded pose graph.

    Returns:
        Names as a sentence would have them ("head", "left arm", "feet"); empty when the person is whole.
    """
    height, width = pixels.shape[:2]
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return []
    length = float(max(np.ptp(rows), np.ptp(columns)) + 1) * region.to_photo[0, 0]
    contacts = [c for c in edge_contacts(mask, region, width, height, length) if c.length > _MIN_CONTACT]
    missing = _landmarks_outside(person, width, height, length, _SLACK_OF_FEET)
    if contacts:
        missing |= _landmarks_outside(_look_beyond(person, contacts, pixels, graph), width, height, length, _SLACK)
    for contact in contacts:
        part = _nearest_part(person, contact)
        standing = contact.edge == "bottom" and part.endswith("foot") and contact.length < _MAX_SOLE
        grazing = contact.edge == "top" and part == "head" and contact.length < _MIN_CONTACT_OF_HEAD
        if contact.widening < _MAX_WIDENING and not standing and not grazing:
            missing.add(part.replace("foot", "leg") if contact.length > _MAX_SOLE else part)
    return _named(missing)


def edge_contacts(
    mask: Bool[np.ndarray, "h w"], region: Region, width: int, height: int, length: float
) -> list[Contact]:
    """Find where the mask touches the picture's edges.

    Args:
        mask: The person, at the pixels of ``region``.
        region: Part of the photo.
        width: Of the photo, pixels.
        height: Of the photo, pixels.
        length: Of the person, photo pixels.
    """
    scale = float(region.to_photo[0, 0])
    depth = max(1, round(_DEPTH * length / scale))
    contacts = []
    for edge, lines, at_edge in (
        ("left", mask.T, region.x0 <= 0),
        ("right", mask.T[::-1], region.x1 >= width),
        ("top", mask, region.y0 <= 0),
        ("bottom", mask[::-1], region.y1 >= height),
    ):
        if not at_edge or lines.shape[0] <= depth:
            continue
        labels, _ = ndimage.label(lines[0])
        inner, _ = ndimage.label(lines[depth])
        for (stretch,) in ndimage.find_objects(labels):
            size = stretch.stop - stretch.start
            below = set(inner[stretch]) - {0}
            wider = sum(int((inner == label).sum()) for label in below)
            along = (stretch.start + size / 2) * scale
            x, y = (along + region.x0, 0.0) if edge in ("top", "bottom") else (0.0, along + region.y0)
            x, y = (float(width) if edge == "right" else x), (float(height) if edge == "bottom" else y)
            contacts.append(Contact(edge, x, y, size * scale / length, wider / size))
    return contacts


def _landmarks_outside(person: Person, width: int, height: int, length: float, slack_of_feet: float) -> set[str]:
    missing = set()
    for part, names in _PARTS.items():
        index = [LANDMARK_NAMES.index(name) for name in names]
        slack = length * (slack_of_feet if part.endswith("foot") else _SLACK)
        points = person.landmarks[index]
        outside = (points < -slack) | (points > np.array([width, height]) + slack)
        if outside.any() or (person.presence[index] < _MIN_PRESENCE).any():
            missing.add(part)
    return missing


def _look_beyond(
    person: Person, contacts: list[Contact], pixels: UInt8[np.ndarray, "h w 3"], graph: PoseGraph
) -> Person:
    """Look again through a larger window, moved towards the edges that the person touches."""
    window = person.window
    edges = {contact.edge for contact in contacts}
    shift = 0.15 * window.side
    x = window.x + shift * (("right" in edges) - ("left" in edges))
    y = window.y + shift * (("bottom" in edges) - ("top" in edges))
    return look(pixels, replace(window, x=x, y=y, side=1.3 * window.side), graph)


def _nearest_part(person: Person, contact: Contact) -> str:
    """The part whose landmark is nearest to a contact."""

    def distance(part: str) -> float:
        points = person.landmarks[[LANDMARK_NAMES.index(name) for name in _PARTS[part]]]
        return float(np.linalg.norm(points - np.array([contact.x, contact.y]), axis=1).min())

    return min(_PARTS, key=distance)


def _named(missing: set[str]) -> list[str]:
    """Drop what is contained in something else that is missing, and say "feet" for both feet."""
    parts = [part for part in _PARTS if part in missing and _CONTAINS.get(part) not in missing]
    named: list[str] = []
    for part in parts:
        side, _, noun = part.partition(" ")
        if not noun or not {f"left {noun}", f"right {noun}"} <= set(parts):
            named.append(part)
        elif side == "left":
            named.append(_PLURALS[noun])
    return named
