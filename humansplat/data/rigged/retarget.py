"""Poses of the default body carried over to another rig, and poses of the rig read as those of the default body.

A pose is held as *turns*: for each joint of the default body the rotation from its rest pose to the world. Bones of
the rig that stand in another direction when bound than the default body's at rest (arms in a T instead of an A) are
first aligned with those, each by the smallest rotation, from the trunk outwards; so palms stay as they were.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from humansplat.data.rigged.skeleton import FINGERS, SIDES
from humansplat.data.rigged.transforms import framed, rotation_part
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.limbs import aim, normalized

_SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
_NECK = ("neck01", "neck02", "neck03")
_LIMBS = {
    "clavicle": ("shoulder01",),
    "upper_arm": ("upperarm01", "upperarm02"),
    "lower_arm": ("lowerarm01", "lowerarm02"),
    "hand": ("wrist",),
    "upper_leg": ("upperleg01", "upperleg02"),
    "lower_leg": ("lowerleg01", "lowerleg02"),
    "foot": ("foot",),
    "toes": ("toe2-1",),
}
"""Joints of the default body that together are one of others; what they do is shared by the mean of their turns."""
_AIMS = {
    "upper_arm": ("lower_arm",),
    "lower_arm": ("hand",),
    "hand": ("middle1", "index1", "ring1"),
    "upper_leg": ("lower_leg",),
    "lower_leg": ("foot",),
}
_ABOVE = {"lower_arm": "upper_arm", "hand": "lower_arm", "lower_leg": "upper_leg"}
"""Whose alignment a limb begins with; feet and toes keep the sole on the ground, the trunk stands upright."""


def house_joints(slot: str, humanoid: Mapping[str, int]) -> tuple[str, ...]:
    """Joints of the default body that a joint of a rig stands for.

    Args:
        slot: Name of the joint, as ``find_humanoid`` gives it.
        humanoid: All joints of the rig: its spine may have more or fewer joints than the default body's.
    """
    side = next((side for side in SIDES if slot.startswith(f"{side}_")), "")
    if side:
        limb = slot.removeprefix(f"{side}_")
        ending = f".{side[0].upper()}"
        if limb in _LIMBS:
            return tuple(name + ending for name in _LIMBS[limb])
        return (f"finger{FINGERS.index(limb[:-1]) + 1}-{limb[-1]}{ending}",)
    for kind, chain in (("spine", _SPINE), ("neck", _NECK)):
        if slot.startswith(kind):
            count = sum(other.startswith(kind) for other in humanoid)
            return (chain[max(round(len(chain) * int(slot.removeprefix(kind)) / count), 1) - 1],)
    return ("root",) if slot == "hips" else ("head",)


class Retarget:
    """What a rig and the default body have to do with each other.

    Args:
        template: The default body.
        humanoid: Nodes of the rig by slot.
        rest: Frames of the nodes as bound, house frame (metres, +Y up, facing +Z), ``[n, 4, 4]``.
        parents: Of the nodes, -1 for roots.
        order: Nodes, parents first.
    """

    def __init__(
        self,
        template: Template,
        humanoid: Mapping[str, int],
        rest: Float[np.ndarray, "n 4 4"],
        parents: tuple[int, ...],
        order: tuple[int, ...],
    ) -> None:
        self.template, self.humanoid, self.rest, self.parents, self.order = template, humanoid, rest, parents, order
        self.joints = {slot: [template.joint(name) for name in house_joints(slot, humanoid)] for slot in humanoid}
        self.alignments: dict[str, Float[np.ndarray, "3 3"]] = {}
        for slot in sorted(humanoid, key=_rank):
            self.alignments[slot] = self._aligned(slot)
        self._slot_of = {node: slot for slot, node in humanoid.items()}

    def _aligned(self, slot: str) -> Float[np.ndarray, "3 3"]:
        """The rotation that takes a bone as bound to the default body's rest direction."""
        side, limb = slot.split("_", 1) if slot.startswith(SIDES) else ("", slot)
        if limb[:-1] in FINGERS:
            above = "hand" if limb[-1] == "1" else f"{limb[:-1]}{int(limb[-1]) - 1}"
            ends: tuple[str, ...] = (f"{limb[:-1]}{int(limb[-1]) + 1}",)
        elif limb in _AIMS:
            above, ends = _ABOVE.get(limb, ""), _AIMS[limb]
        else:
            return np.eye(3)
        begun = self.alignments.get(f"{side}_{above}", np.eye(3))
        end = next((f"{side}_{name}" for name in ends if f"{side}_{name}" in self.humanoid), None)
        if end is None:
            return begun
        here, there = (self.rest[self.humanoid[name], :3, 3] for name in (slot, end))
        house = self.template.joints[self.joints[end][0]] - self.template.joints[self.joints[slot][0]]
        if np.linalg.norm(there - here) < 1e-4:
            return begun
        return aim(begun @ normalized(there - here), normalized(house.astype(np.float64))) @ begun

    def frames(self, turns: Float[np.ndarray, "j 3 3"]) -> Float[np.ndarray, "n 4 4"]:
        """Frames of the rig's nodes in a pose of the default body; the hips stay where they were bound.

        Joints that the default body knows nothing of (hair, skirts, twists) move with what they hang on.
        """
        frames = self.rest.copy()
        turned = np.broadcast_to(np.eye(3), (len(frames), 3, 3)).copy()
        for node in self.order:
            parent = self.parents[node]
            if parent >= 0:
                turned[node] = turned[parent]
                offset = self.rest[node, :3, 3] - self.rest[parent, :3, 3]
                frames[node, :3, 3] = frames[parent, :3, 3] + turned[parent] @ offset
            slot = self._slot_of.get(node)
            if slot is not None:
                turned[node] = rotation_part(framed(turns[self.joints[slot]].mean(0))) @ self.alignments[slot]
            frames[node, :3, :3] = turned[node] @ self.rest[node, :3, :3]
        return frames

    def turns(self, frames: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "j 3 3"]:
        """The pose of the default body that is nearest to a pose of the rig."""
        known: dict[int, Float[np.ndarray, "3 3"]] = {}
        for slot, node in self.humanoid.items():
            moved = rotation_part(frames[node]) @ rotation_part(self.rest[node]).T
            known |= dict.fromkeys(self.joints[slot], moved @ self.alignments[slot].T)
        known |= self._between(known)
        turned = np.empty((len(self.template.joint_names), 3, 3))
        for joint, parent in enumerate(self.template.joint_parents):
            turned[joint] = known.get(joint, turned[parent] if parent >= 0 else np.eye(3))
        return turned

    def _between(self, known: Mapping[int, Float[np.ndarray, "3 3"]]) -> dict[int, Float[np.ndarray, "3 3"]]:
        """Turns of the joints of spine and neck that the rig lacks: a bend is shared out evenly."""
        column = [self.template.joint(name) for name in ("root", *_SPINE, *_NECK, "head")]
        places = [place for place, joint in enumerate(column) if joint in known]
        path = Slerp(places, Rotation.from_matrix(np.stack([known[column[place]] for place in places])))
        return {column[place]: path(place).as_matrix() for place in range(len(column)) if place not in places}

    def alignment_of(self) -> Float[np.ndarray, "j 3 3"]:
        """For each joint of the default body the alignment of what it is in the rig, or hangs on."""
        known = {joint: self.alignments[slot] for slot, joints in self.joints.items() for joint in joints}
        found = np.empty((len(self.template.joint_names), 3, 3))
        for joint, parent in enumerate(self.template.joint_parents):
            found[joint] = known.get(joint, found[parent] if parent >= 0 else np.eye(3))
        return found

    def part_of_nodes(self) -> tuple[int, ...]:
        """Part label of each node; nodes that are no joint of a human have that of what they hang on."""
        labels = [int(self.template.joint_parts[self.template.joint("root")])] * len(self.parents)
        for node in self.order:
            slot = self._slot_of.get(node)
            if slot is not None:
                labels[node] = int(self.template.joint_parts[self.joints[slot][0]])
            elif self.parents[node] >= 0:
                labels[node] = labels[self.parents[node]]
        return tuple(labels)


def world_turns(rotations: Float[np.ndarray, "j 3 3"], parents: tuple[int, ...]) -> Float[np.ndarray, "j 3 3"]:
    """Turns of a pose that is given by the rotation of each joint against its parent; parents come first."""
    turned = np.empty(rotations.shape)
    for joint, parent in enumerate(parents):
        turned[joint] = rotations[joint] if parent < 0 else turned[parent] @ rotations[joint]
    return turned


def local_rotations(turns: Float[np.ndarray, "j 3 3"], parents: tuple[int, ...]) -> Float[np.ndarray, "j 3 3"]:
    """The inverse of ``world_turns``."""
    above = np.array([max(parent, 0) for parent in parents])
    local = turns[above].swapaxes(1, 2) @ turns
    local[0] = turns[0]
    return local


def _rank(slot: str) -> tuple[int, str]:
    """Trunk, then each limb from its root outwards, then fingers."""
    order = ("upper_arm", "upper_leg", "lower_arm", "lower_leg", "hand", "foot")
    limb = slot.split("_", 1)[1] if slot.startswith(SIDES) else ""
    if limb in order:
        return order.index(limb) + 1, slot
    return (len(order) + 1 if limb[:-1] in FINGERS else 0), slot
