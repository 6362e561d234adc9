"""Is the whole person in the picture? If not, say which part is missing."""

import numpy as np
from jaxtyping import Bool, Float

from humansplat.capture.landmarks import LANDMARK_NAMES, Person

# Landmarks may leave the picture by this share of the person's length: fingertips and toes are uncertain.
_SLACK = 0.02
_MIN_PRESENCE = 0.5
# The head is cut when the picture's upper edge crosses it over more than this share of its width.
_MAX_CUT_WIDTH = 0.55

# Later parts are named only when the earlier ones, which contain them, are inside.
_PARTS = {
    "head": ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    "left leg": ("left_knee",),
    "right leg": ("right_knee",),
    "left foot": ("left_ankle", "left_heel", "left_foot_index"),
    "right foot": ("right_ankle", "right_heel", "right_foot_index"),
    "left arm": ("left_elbow",),
    "right arm": ("right_elbow",),
    "left hand": ("left_wrist", "left_index"),
    "right hand": ("right_wrist", "right_index"),
}
_CONTAINS = {"left foot": "left leg", "right foot": "right leg", "left hand": "left arm", "right hand": "right arm"}


def missing_parts(person: Person, mask: Bool[np.ndarray, "h w"], width: int, height: int) -> list[str]:
    """Name the parts of a person that lie outside the picture.

    Args:
        person: As found.
        mask: Coarse mask of the whole picture, at any resolution.
        width: Of the picture, the landmarks' pixels.
        height: Of the picture.

    Returns:
        Names as a sentence would have them ("head", "left arm", "feet"); empty when the person is whole.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return []
    length = max(np.ptp(rows) * height / mask.shape[0], np.ptp(columns) * width / mask.shape[1])
    outside = _outside(person.landmarks, width, height, _SLACK * float(length)) | (person.presence < _MIN_PRESENCE)
    missing = {part for part, names in _PARTS.items() if any(outside[LANDMARK_NAMES.index(name)] for name in names)}
    if _cut_width_of_head(person, mask, width, height) > _MAX_CUT_WIDTH:
        missing.add("head")
    named = [part for part in _PARTS if part in missing and _CONTAINS.get(part) not in missing]
    return _in_pairs(named)


def _outside(points: Float[np.ndarray, "n 2"], width: int, height: int, slack: float) -> Bool[np.ndarray, " n"]:
    low, high = -slack, np.array([width, height]) + slack
    return ((points < low) | (points > high)).any(axis=1)


def _cut_width_of_head(person: Person, mask: Bool[np.ndarray, "h w"], width: int, height: int) -> float:
    """How much of the head's width the picture's upper edge crosses."""
    scale = np.array([mask.shape[1] / width, mask.shape[0] / height])
    head = person.landmarks[:11] * scale
    row = int(head[0, 1])
    if not 0 <= row < mask.shape[0]:
        return 0.0
    # Around the face only: a raised arm beside the head also crosses the edge, and is cut by itself.
    centre, reach = float(head[:, 0].mean()), max(2.0, 1.5 * float(np.ptp(head[:, 0])))
    around = slice(max(0, int(centre - reach)), int(np.ceil(centre + reach)))
    across = max(1, int(mask[row, around].sum()))
    return float(mask[0, around].sum()) / across


def _in_pairs(parts: list[str]) -> list[str]:
    """Say "feet" for both feet, and so on."""
    plurals = {"leg": "legs", "foot": "feet", "arm": "arms", "hand": "hands"}
    named: list[str] = []
    for part in parts:
        side, _, noun = part.partition(" ")
        if noun and f"left {noun}" in parts and f"right {noun}" in parts:
            if side == "left":
                named.append(plurals[noun])
        else:
            named.append(part)
    return named
