"""Signed fields over the mean adult by which garments are cut: positive where cloth stays."""

import numpy as np
from jaxtyping import Float

from humansplat.data.synthetic.cloth import Cloth
from humansplat.data.synthetic.figure import Template

ARM_BONES = ("upperarm", "lowerarm", "wrist", "metacarpal", "finger")
LEG_BONES = ("upperleg", "lowerleg", "foot", "toe")
HEAD_BONES = (
    *("head", "jaw", "eye", "tongue", "special", "levator", "oris", "temporalis", "orbicularis", "risorius"),
    "oculi",
)


class Regions:
    """Fields of points that know their place on the mean adult and their joints."""

    def __init__(self, template: Template) -> None:
        """Look up joints and bones of the body."""
        self.template = template
        names = template.joint_names
        self._arm = np.array([name.startswith(ARM_BONES) for name in names], np.float32)
        self._leg = np.array([name.startswith(LEG_BONES) for name in names], np.float32)
        self._head = np.array([name.startswith(HEAD_BONES) for name in names], np.float32)
        self._foot = np.array([name.startswith(("foot", "toe")) for name in names], np.float32)

    def place(self, joint: str) -> Float[np.ndarray, " 3"]:
        """Where the mean adult has a joint."""
        return self.template.joints[self.template.joint(joint)]

    def arm(self, cloth: Cloth) -> Float[np.ndarray, " n"]:
        """Share of the arms' bones."""
        return cloth.weights @ self._arm

    def leg(self, cloth: Cloth) -> Float[np.ndarray, " n"]:
        """Share of the legs' bones."""
        return cloth.weights @ self._leg

    def head(self, cloth: Cloth) -> Float[np.ndarray, " n"]:
        """Share of the head's bones."""
        return cloth.weights @ self._head

    def foot(self, cloth: Cloth) -> Float[np.ndarray, " n"]:
        """Share of the feet's bones."""
        return cloth.weights @ self._foot

    def along_arm(self, cloth: Cloth) -> Float[np.ndarray, " n"]:
        """0 at the shoulder joint, 0.5 at the elbow, 1 at the wrist, more on the hand."""
        points = cloth.canonical * [1, 1, 1]
        points[:, 0] = np.abs(points[:, 0])
        shoulder, elbow, wrist = (self.place(f"{name}.L") for name in ("upperarm01", "lowerarm01", "wrist"))
        upper, fore = elbow - shoulder, wrist - elbow
        first = np.minimum((points - shoulder) @ upper / (upper @ upper), 1.0)
        second = np.maximum((points - elbow) @ fore / (fore @ fore), 0.0)
        return (0.5 * first + 0.5 * second).astype(np.float32)

    def sleeve(self, cloth: Cloth, length: float) -> Float[np.ndarray, " n"]:
        """Positive on the trunk and on the arms down to ``length`` of :meth:`along_arm`."""
        field = length - self.along_arm(cloth)
        trunk = self.arm(cloth) < 0.35
        return np.where(trunk, np.maximum(field, 0.03), field).astype(np.float32)

    def neckline(self, cloth: Cloth, radius: float, depth: float, vee: float) -> Float[np.ndarray, " n"]:
        """Positive outside the opening of a neck.

        Args:
            cloth: The piece.
            radius: Half width, metres.
            depth: How far the opening reaches down in front, metres.
            vee: 0 for a round opening, 1 for a pointed one.
        """
        base = self.place("neck01")
        x, y, z = (cloth.canonical - [0.0, base[1] - 0.01, base[2]]).T
        front = np.clip(z / 0.06 + 0.3, 0, 1)
        down = np.where(y < 0, y / (0.03 + front * depth), y / 0.10)
        side = np.abs(x) / radius
        round_field = np.hypot(side, down) - 1
        vee_field = side + np.abs(down) - 1
        return (((1 - vee) * round_field + vee * vee_field) * radius).astype(np.float32)
