"""Arms and legs of uncommon poses: anywhere that shoulders and hips allow, with elbows and knees as hinges."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from humansplat.data.synthetic.limbs import Hinged, unit

MAX_KNEE, MAX_ELBOW = 2.2, 2.5
"""Largest flexion, radians."""

WIDE_ARM_KINDS = {
    "free": 0.5, "guarding": 0.12, "crossing": 0.12, "hanging": 0.06, "hip": 0.03, "forward": 0.04, "side": 0.04,
    "raised": 0.05, "head": 0.02, "behind": 0.02,
}  # fmt: skip
"""How often each kind of arm is drawn in wide poses; other names than the first three are kinds of photographs."""

WIDE_LEG_KINDS = {
    "free": 0.3, "stepping": 0.11, "high_kick": 0.15, "side_lunge": 0.09, "kneeling": 0.04, "lunging": 0.07,
    "standing": 0.09, "wide": 0.07, "squatting": 0.04, "running": 0.04,
}  # fmt: skip
"""How often each kind of legs is drawn in wide poses; those after ``kneeling`` are kinds of photographs."""


def draw_wide_arm(rng: np.random.Generator, kind: str) -> Hinged:
    """An arm of a named kind in the trunk's frame, as a left arm has it."""
    u = rng.uniform
    if kind == "guarding":  # a fist before the chin or the chest
        return Hinged(unit(u(0.0, 0.6), -1, u(0.0, 0.9)), u(-0.6, 0.4), u(1.5, 2.4))
    if kind == "crossing":  # over to the other side of the body
        return Hinged(unit(u(-0.6, -0.05), u(-0.8, 0.4), 1), u(-0.9, 0.5), 1.8 * rng.beta(1, 1.5))
    while True:
        x, y, z = u(-0.4, 1), u(-1, 1), u(-0.5, 1)
        crosses_behind = x < 0.1 and z < 0.3 and y > -0.8
        if np.hypot(np.hypot(x, y), z) > 0.3 and not crosses_behind and not (z < -0.2 and y > 0.2):
            break
    outwards = float(np.clip(rng.normal(0.0, 0.6), -1.2, 1.3))
    return Hinged(unit(x, y, z), outwards, MAX_ELBOW * rng.beta(1.0, 1.3))


def draw_wide_legs(rng: np.random.Generator, kind: str, pelvis: Float[np.ndarray, "3 3"]) -> tuple[Hinged, Hinged]:
    """The leg that makes the pose and the one that bears, both as a left leg has them, in the world's frame.

    Args:
        rng: Source of all choices.
        kind: ``free``, ``stepping``, ``kneeling``, ``side_lunge``, or a high kick: ``kick_front``, ``kick_side``,
            ``kick_back``.
        pelvis: Rotation of the pelvis, mirrored if the first leg is the right one.
    """
    u = rng.uniform
    outwards = float(np.clip(rng.normal(0.15, 0.25), -0.4, 0.8))

    def raised(direction: Float[np.ndarray, " 3"], flexion: float) -> Hinged:
        return Hinged(pelvis @ direction, outwards, flexion)

    kinds: dict[str, Callable[[], Hinged]] = {
        "free": lambda: raised(_free_thigh(rng), MAX_KNEE * rng.beta(1.0, 1.3)),
        "stepping": lambda: raised(unit(u(-0.2, 0.5), u(-0.9, 0.5), 1), u(0.9, MAX_KNEE)),
        "kick_front": lambda: raised(unit(u(-0.2, 0.35), u(-0.2, 1.0), 1), rng.beta(1.0, 2.5)),
        "kick_side": lambda: raised(unit(1, u(-0.5, 0.3), u(-0.2, 0.8)), 1.8 * rng.beta(1.0, 1.8)),
        "kick_back": lambda: raised(unit(u(-0.1, 0.4), -1, -u(0.1, 0.6)), 1.5 * rng.beta(1.0, 1.5)),
        "side_lunge": lambda: Hinged(unit(u(0.3, 0.9), -1, u(0.2, 0.9)), outwards + 0.2, u(0.5, 1.5)),
        "kneeling": lambda: Hinged(unit(u(0.0, 0.4), u(-0.25, 0.3), 1), outwards, u(1.3, 1.9)),
    }
    first = kinds[kind]()
    turned = float(np.clip(rng.normal(0.12, 0.2), -0.3, 0.6))
    if kind == "kneeling":
        second = Hinged(unit(u(0.0, 0.2), -1, u(-0.4, 0.2)), turned, u(1.2, 1.9))
    elif kind == "side_lunge":
        second = Hinged(unit(u(0.4, 1.1), -1, u(-0.3, 0.15)), turned, u(0.0, 0.25))
    elif kind == "free" and rng.random() < 0.12:  # in the air, or sitting on something
        second = Hinged(pelvis @ _free_thigh(rng), turned, MAX_KNEE * rng.beta(1.0, 1.3))
    else:
        forward = u(-0.35, 0.4)
        second = Hinged(unit(u(-0.05, 0.4), -1, forward), turned, max(forward, 0) + 0.7 * rng.beta(1.0, 2.5))
    return first, second


def _free_thigh(rng: np.random.Generator) -> Float[np.ndarray, " 3"]:
    """Where a thigh can point, in the pelvis' frame: hips stretch little backwards and inwards."""
    while True:
        x, y, z = rng.uniform(-0.3, 0.9), rng.uniform(-1, 0.5), rng.uniform(-0.7, 1)
        direction = unit(x, y, z)
        behind = z < 0 and (y > 0 or direction[2] < -0.5)
        inwards = direction[0] < (-0.3 if z > 0 else -0.05)
        aside = y > 0.1 and z < 0.3
        if not (behind or inwards or aside):
            return direction
