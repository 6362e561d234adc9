"""Contact and balance: feet that should stand do stand, and the centre of mass lies over what carries it.

Legs are corrected by two-bone inverse kinematics with the knee as a hinge; what cannot be mended is to be drawn again.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.figure import Figure, Template, joint_transforms
from humansplat.data.synthetic.limbs import aim, normalized

FREE = ("running", "jumping", "sitting", "fly", "gym", "falling")
"""Kinds of poses that stand on nothing, or on what is not shown."""
TOUCHING = 0.015
"""Soles this far above the ground carry, metres."""
NEAR = 0.14
"""A second foot that is drawn no higher than this is set on the ground, metres."""
LEVEL = 0.85
"""Radians by which an ankle bends at most to lay a sole on the ground."""
MARGIN = 0.02
"""The centre of mass may leave the soles' hull by this much: shoes are larger than feet, metres."""
STEPS = 6
SEGMENTS: dict[str, tuple[str, str, float, float]] = {
    "head": ("neck03", "head", 0.081, 1.0),
    "trunk": ("root", "neck01", 0.497, 0.5),
    **{f"upper arm {s}": (f"upperarm01.{s}", f"lowerarm01.{s}", 0.028, 0.436) for s in "LR"},
    **{f"forearm {s}": (f"lowerarm01.{s}", f"wrist.{s}", 0.016, 0.43) for s in "LR"},
    **{f"hand {s}": (f"wrist.{s}", f"finger3-1.{s}", 0.006, 0.7) for s in "LR"},
    **{f"thigh {s}": (f"upperleg01.{s}", f"lowerleg01.{s}", 0.1, 0.433) for s in "LR"},
    **{f"shank {s}": (f"lowerleg01.{s}", f"foot.{s}", 0.0465, 0.433) for s in "LR"},
    **{f"foot {s}": (f"foot.{s}", f"toe3-1.{s}", 0.0145, 0.5) for s in "LR"},
}
"""Ends, share of the mass, and place of its centre between the ends (Winter, Biomechanics and Motor Control of Human
Movement, table 4.1)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """How a pose stands."""

    heights: Float[np.ndarray, " 2"]
    """Of the left and right sole's lowest points above the ground, metres; one of them is 0 if a foot is lowest."""
    outside: float
    """By how far the centre of mass projects outside the soles' hull; negative inside, metres."""
    carrying: Bool[np.ndarray, " 2"]
    """Which feet touch the ground."""

    @property
    def balanced(self) -> bool:
        """Whether somebody could stand like this."""
        return bool(self.carrying.any()) and self.outside < MARGIN


class Balancer:
    """The feet, legs and masses of one shaped body."""

    def __init__(self, template: Template, rest: Float[np.ndarray, "b 3"], joints: Float[np.ndarray, "j 3"]) -> None:
        """Find the soles.

        Args:
            template: What all bodies share.
            rest: Base mesh of the person at rest.
            joints: Joints at rest.
        """
        self.template, self.rest, self.joints = template, rest, joints
        skin = template.skin_ids
        foot = [k for k, name in enumerate(template.joint_names) if name.startswith(("foot", "toe"))]
        low = template.canonical[skin, 1] < 0.035
        feet = low & (template.weights[skin][:, foot].sum(1) > 0.5)
        left = template.canonical[skin, 0] > 0
        self.soles = [skin[feet & left], skin[feet & ~left]]
        self.others = skin[~feet][::17]
        ends = [[template.joint(end) for end in segment[:2]] for segment in SEGMENTS.values()]
        self.ends: Int[np.ndarray, "s 2"] = np.array(ends)
        self.shares = np.array([segment[2] for segment in SEGMENTS.values()])
        self.places = np.array([segment[3] for segment in SEGMENTS.values()])[:, None]

    def _frames(self, rotations: Float[np.ndarray, "j 3 3"]) -> tuple[np.ndarray, np.ndarray]:
        transforms = joint_transforms(self.joints, self.template.joint_parents, rotations)
        return transforms, np.einsum("jab,jb->ja", transforms[..., :3], self.joints) + transforms[..., 3]

    def _soles(self, transforms: np.ndarray) -> list[np.ndarray]:
        figure = Figure(rest=self.rest, transforms=transforms)
        return [figure.pose(self.rest[ids], self.template.weights[ids]) for ids in self.soles]

    def mass_center(self, places: Float[np.ndarray, "j 3"]) -> Float[np.ndarray, " 3"]:
        """Centre of mass of a posed body from its joints."""
        start, end = places[self.ends[:, 0]], places[self.ends[:, 1]]
        return (self.shares[:, None] * (start + self.places * (end - start))).sum(0) / self.shares.sum()

    def judge(self, rotations: Float[np.ndarray, "j 3 3"]) -> Standing:
        """Measure how a pose stands."""
        transforms, places = self._frames(rotations)
        return self._judge(transforms, places, self._soles(transforms))

    def _judge(self, transforms: np.ndarray, places: np.ndarray, soles: list[np.ndarray]) -> Standing:
        others = Figure(rest=self.rest, transforms=transforms).pose(
            self.rest[self.others], self.template.weights[self.others]
        )
        floor = min(others[:, 1].min(), *(sole[:, 1].min() for sole in soles))
        heights = np.array([sole[:, 1].min() - floor for sole in soles])
        carrying = heights < TOUCHING
        points = np.concatenate([sole[sole[:, 1] < floor + TOUCHING] for sole in (*soles, others)])[:, [0, 2]]
        center = self.mass_center(places)[[0, 2]]
        return Standing(heights=heights, outside=_outside(center, points), carrying=carrying)

    def settle(self, rotations: Float[np.ndarray, "j 3 3"]) -> Float[np.ndarray, "j 3 3"]:
        """Set feet on the ground and bring the centre of mass over them, as far as legs allow.

        Args:
            rotations: Of all joints; a pose that should stand.

        Returns:
            The pose with other legs.
        """
        rotations = rotations.copy()
        for _ in range(STEPS):
            transforms, places = self._frames(rotations)
            soles = self._soles(transforms)
            standing = self._judge(transforms, places, soles)
            if standing.balanced and not ((standing.heights > TOUCHING / 2) & (standing.heights < NEAR)).any():
                break
            lowest = [float(sole[:, 1].min()) for sole in soles]
            floor = min(lowest)
            bearing = [k for k in range(2) if lowest[k] < floor + NEAR]
            center = self.mass_center(places)[[0, 2]]
            hull = np.concatenate([soles[k][:, [0, 2]] for k in bearing])
            middle = np.mean([soles[k][:, [0, 2]].mean(0) for k in bearing], axis=0)
            off = center - middle
            share = 0.0 if _outside(center, hull) < -0.5 * MARGIN else 0.8
            shift = np.array([share * off[0], 0.0, share * off[1]])
            # The pelvis goes by -shift: with the body as the frame, the feet go by +shift.
            drop = self._reachable(places, bearing, lowest, floor, shift)
            for k in bearing:
                ankle = places[self.template.joint(f"foot.{'LR'[k]}")]
                target = ankle + shift + [0.0, floor + drop - lowest[k], 0.0]
                self._leg(rotations, transforms, places, "LR"[k], target)
        return rotations

    def _reachable(
        self, places: np.ndarray, bearing: list[int], lowest: list[float], floor: float, shift: np.ndarray
    ) -> float:
        """How far the ground must come up so that every bearing leg reaches it, metres."""
        drop = 0.0
        for k in bearing:
            hip, knee, ankle = (self.template.joint(f"{name}.{'LR'[k]}") for name in _LEG)
            length = np.linalg.norm(places[knee] - places[hip]) + np.linalg.norm(places[ankle] - places[knee])
            way = places[ankle] + shift + [0.0, floor - lowest[k], 0.0] - places[hip]
            flat = np.hypot(way[0], way[2])
            longest = np.sqrt(max((0.998 * length) ** 2 - flat**2, 0.01))
            drop = max(drop, -way[1] - longest)
        return drop

    def _leg(
        self,
        rotations: Float[np.ndarray, "j 3 3"],
        transforms: Float[np.ndarray, "j 3 4"],
        places: Float[np.ndarray, "j 3"],
        side: str,
        target: Float[np.ndarray, " 3"],
    ) -> None:
        """Bend the knee, swing the thigh and turn the sole, so that the ankle comes to a place; in place.

        Args:
            rotations: Of all joints; the leg's are changed.
            transforms: Of the pose before.
            places: Of its joints.
            side: ``L`` or ``R``.
            target: Where the ankle goes.
        """
        hip, knee, ankle = (self.template.joint(f"{name}.{side}") for name in _LEG)
        parents = self.template.joint_parents
        thigh, shank = places[knee] - places[hip], places[ankle] - places[knee]
        a, b = np.linalg.norm(thigh), np.linalg.norm(shank)
        wanted = float(np.clip(np.linalg.norm(target - places[hip]), abs(a - b) + 0.05, 0.9995 * (a + b)))
        axis = np.cross(thigh, shank)
        if np.linalg.norm(axis) < 0.02 * a * b:  # a straight knee flexes about the thigh's own sideways axis
            axis = transforms[hip, :, :3] @ np.array([1.0, 0.0, 0.0])
            axis -= (axis @ thigh) * thigh / a**2
        axis = normalized(axis)
        present = np.arctan2(axis @ np.cross(thigh, shank), thigh @ shank)
        cosine = (wanted**2 - a**2 - b**2) / (2 * a * b)
        bend = _about(axis, float(np.arccos(np.clip(cosine, -1, 1)) - present))
        swing = aim(normalized(thigh + bend @ shank), normalized(target - places[hip]))
        for joint, change in ((knee, bend), (hip, swing)):
            frame = transforms[parents[joint], :, :3]
            rotations[joint] = frame.T @ change @ frame @ rotations[joint]
        # The sole lies flat, or as far as the ankle bends: then heel or toes lift.
        parent = swing @ bend @ transforms[parents[ankle], :, :3]
        up = parent @ rotations[ankle] @ np.array([0.0, 1.0, 0.0])
        level = aim(normalized(up), np.array([0.0, 1.0, 0.0]))
        rotations[ankle] = _limited(parent.T @ level @ parent @ rotations[ankle], LEVEL)


_LEG = ("upperleg01", "lowerleg01", "foot")


def should_stand(name: str) -> bool:
    """Whether a pose of this name stands on its feet."""
    return not any(kind in name for kind in FREE)


def _about(axis: Float[np.ndarray, " 3"], angle: float) -> Float[np.ndarray, "3 3"]:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _limited(rotation: Float[np.ndarray, "3 3"], most: float) -> Float[np.ndarray, "3 3"]:
    vector = Rotation.from_matrix(rotation).as_rotvec()
    length = float(np.linalg.norm(vector))
    return Rotation.from_rotvec(vector * min(1.0, most / max(length, 1e-6))).as_matrix()


def _outside(point: Float[np.ndarray, " 2"], points: Float[np.ndarray, "n 2"]) -> float:
    """Signed distance of a point from the hull of others, as the largest over its edges' lines."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # fewer than three points, or all on a line
        return float(np.linalg.norm(points - point, axis=1).min()) if len(points) else 1.0
    return float((hull.equations[:, :2] @ point + hull.equations[:, 2]).max())
