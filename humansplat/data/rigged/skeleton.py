"""Which joint of a rig is which of a human: by VRM's own list, or by the names that the usual programs give.

Known: Mixamo, 3ds Max Biped (Rocketbox), the Unreal mannequin, Character Creator and ActorCore, VRM and VRoid, Rigify
(deform bones and meta-rig), MakeHuman, SMPL, and rigs like that of CesiumMan that number the joints of each limb.
"""

import re
from dataclasses import dataclass

SIDES = ("left", "right")
FINGERS = ("thumb", "index", "middle", "ring", "little")
LIMBS = ("clavicle", "upper_arm", "lower_arm", "hand", "upper_leg", "lower_leg", "foot", "toes")
CHAINS = {
    "arm": ("upper_arm", "lower_arm", "hand"),
    "leg": ("upper_leg", "lower_leg", "foot", "toes"),
}
"""What the joints of a limb are, from the trunk outwards, where all have the same name but for a number."""
NEEDED = ("hips", "head", *(f"{side}_{limb}" for side in SIDES for limb in LIMBS if limb not in ("clavicle", "toes")))

_WORDS = {
    "hips": "hips hip pelvis",
    "spine": "spine chest upperchest waist torso abdomen stomach lowerback",
    "neck": "neck necktwist neckbase",
    "head": "head",
    "clavicle": "shoulder clavicle collar collarbone",
    "upper_arm": "upperarm uparm shldr",
    "arm": "arm",
    "lower_arm": "forearm lowerarm lowarm loarm elbow",
    "hand": "hand wrist",
    "upper_leg": "upleg upperleg thigh",
    "leg": "leg",
    "lower_leg": "lowerleg lowleg loleg calf shin knee",
    "foot": "foot ankle",
    "toes": "toe toes toebase ball",
}
WORD_OF = {word: slot for slot, words in _WORDS.items() for word in words.split()}
_FINGER = re.compile(
    r"^(?:hand|f)?(thumb|index|middle|mid|ring|little|pinky)(metacarpal|proximal|intermediate|distal)?$"
)
_ALIASES = {"mid": "middle", "pinky": "little"}
_PHALANX = {"metacarpal": 0, "proximal": 1, "intermediate": 2, "distal": 3}
_PREFIXES = {
    "mixamorig",
    "bip",
    "cc",
    "base",
    "j",
    "def",
    "b",
    "bn",
    "bone",
    "jnt",
    "joint",
    "skeleton",
    "sk",
    "c",
    "f",
}
_SIDE_WORDS = {
    "left": "left",
    "l": "left",
    "lft": "left",
    "right": "right",
    "r": "right",
    "rt": "right",
    "rgt": "right",
}
_OTHERS = {
    *(
        "twist",
        "roll",
        "share",
        "helper",
        "nub",
        "end",
        "tip",
        "ik",
        "pole",
        "ctrl",
        "target",
        "eff",
        "effector",
        "top",
    ),
    *("socket", "weapon", "attach", "jiggle", "bust", "breast", "cloth", "skirt", "hair", "sec", "adj", "mch", "org"),
    *("corrective", "half", "eye", "jaw", "tongue", "teeth", "facial", "front", "pin", "tweak", "heel", "metatarsal"),
}
_VRM = {
    "hips": "hips", "head": "head", "neck": "neck1", "spine": "spine1", "chest": "spine2", "upperChest": "spine3",
    "Shoulder": "clavicle", "UpperArm": "upper_arm", "LowerArm": "lower_arm", "Hand": "hand", "UpperLeg": "upper_leg",
    "LowerLeg": "lower_leg", "Foot": "foot", "Toes": "toes",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """What the name of a joint says."""

    slot: str
    """One of the limbs, ``spine``, ``neck``, ``arm``, ``thumb``, ...; empty when it says nothing known."""
    side: str = ""
    number: int = 0
    """Last number in the name: of the phalanx, the spine joint, ..."""


def understood(name: str) -> Name:
    """Read the name of a joint.

    Example:
        >>> understood("mixamorig:LeftForeArm")
        Name(slot='lower_arm', side='left', number=0)
    """
    plain = re.sub(r"^.*[:|]", "", name)
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", plain)]
    numbers = [int(word) for word in words if word.isdigit()]
    words = [word for word in words if not word.isdigit()]
    side = ""
    for word in list(words):
        if word in _SIDE_WORDS and not side:
            side = _SIDE_WORDS[word]
            words.remove(word)
    while len(words) > 1 and words[0] in _PREFIXES:
        words = words[1:]
    words = [word for word in words if word != "joint"] or words
    joined = "".join(words)
    for spelled in SIDES:  # all in one case: "leftupleg", "upperarmleft"
        if not side and joined not in WORD_OF and (joined.startswith(spelled) or joined.endswith(spelled)):
            side, joined = spelled, joined.removeprefix(spelled).removesuffix(spelled)
    number = numbers[-1] if numbers else 0
    finger = _FINGER.match(joined)
    if finger:
        phalanx = _PHALANX.get(finger[2], number) if finger[2] else number
        return Name(_ALIASES.get(finger[1], finger[1]), side, phalanx)
    pair = re.search(r"finger(\d)-(\d)", plain)  # MakeHuman: finger1-1 is the thumb's first
    if pair and 1 <= int(pair[1]) <= len(FINGERS):
        return Name(FINGERS[int(pair[1]) - 1], side, int(pair[2]))
    if joined == "finger" and numbers:  # Biped: Finger0, Finger01, Finger02 are the thumb
        digits = re.findall(r"\d+", plain)[-1]
        if int(digits[0]) < len(FINGERS):
            return Name(FINGERS[int(digits[0])], side, 1 + (int(digits[1:]) if digits[1:] else 0))
    if joined in WORD_OF:
        return Name(WORD_OF[joined], side, number)
    if _OTHERS & set(words):
        return Name("")
    return Name(WORD_OF.get(joined, ""), side, number)


def find_humanoid(
    names: tuple[str, ...], parents: tuple[int, ...], joints: frozenset[int], vrm: dict[str, int] | None = None
) -> dict[str, int]:
    """Find the joints of a human.

    Args:
        names: Of all nodes.
        parents: Of all nodes, -1 for roots.
        joints: Nodes that move a mesh.
        vrm: VRM's own list, where the file has one.

    Returns:
        A node for each of ``hips``, ``spine1`` (the lowest) ..., ``neck1`` ..., ``head``, ``left_upper_arm``, ...,
        ``left_index1``, ...; empty if the rig is none of the known, or not a human's.
    """
    found = _from_vrm(vrm) if vrm else {}
    if not _complete(found, parents):
        found = _from_names(names, parents, joints)
    return found if _complete(found, parents) else {}


def _from_vrm(bones: dict[str, int]) -> dict[str, int]:
    found = {}
    for bone, node in bones.items():
        side = next((side for side in SIDES if bone.startswith(side)), "")
        rest = bone.removeprefix(side)
        finger = re.match(r"(Thumb|Index|Middle|Ring|Little)(Metacarpal|Proximal|Intermediate|Distal)$", rest)
        if finger and side:
            number = _PHALANX[finger[2].lower()]
            if "leftThumbMetacarpal" in bones and finger[1] == "Thumb":  # VRM 1 counts the thumb from its root
                number = {"Metacarpal": 1, "Proximal": 2, "Distal": 3}.get(finger[2], number)
            found[f"{side}_{finger[1].lower()}{number}"] = node
        elif rest in _VRM:
            found[f"{side}_{_VRM[rest]}" if side else _VRM[rest]] = node
    for kind in ("spine", "neck"):  # numbered without gaps
        chain = [found.pop(key) for key in sorted(found) if key.startswith(kind)]
        found |= {f"{kind}{number}": node for number, node in enumerate(chain, 1)}
    return found


def _from_names(names: tuple[str, ...], parents: tuple[int, ...], joints: frozenset[int]) -> dict[str, int]:
    lines = {node: _ancestors(node, parents) for node in joints}
    nodes = sorted(joints.union(*lines.values()) if joints else (), key=lambda node: (_depth(node, parents), node))
    slots: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for node in nodes:
        name = understood(names[node])
        if name.slot:
            slots.setdefault((name.slot, name.side), []).append((node, name.number))
    _split_spine(slots)
    found: dict[str, int] = {}
    for side in SIDES:
        _numbered_limbs(slots, side, parents)
        for limb in LIMBS:
            if slots.get((limb, side)):
                found[f"{side}_{limb}"] = slots[limb, side][0][0]
        for finger in FINGERS:
            for node, number in _phalanges(slots.get((finger, side), []), parents):
                found[f"{side}_{finger}{number}"] = node
    if not slots.get(("head", "")) or not all(f"{side}_upper_leg" in found for side in SIDES):
        return {}
    found["head"] = slots["head", ""][0][0]
    line = _ancestors(found["head"], parents)
    shared = [node for node in line if all(node in _ancestors(found[f"{side}_upper_leg"], parents) for side in SIDES)]
    named = [node for node, _ in slots.get(("hips", ""), []) if node in shared]
    if not shared:
        return {}
    found["hips"] = named[0] if named else shared[0]
    for slot in ("spine", "neck"):
        chain = [
            node for node, _ in slots.get((slot, ""), []) if node in line and node not in (found["hips"], *shared)
        ]
        found |= {f"{slot}{number}": node for number, node in enumerate(chain, 1)}
    return found


def _split_spine(slots: dict[tuple[str, str], list[tuple[int, int]]]) -> None:
    """Rigify numbers one spine from the hips to the head; CesiumMan's neck ends in the head."""
    if ("head", "") in slots:
        return
    spine, neck = slots.get(("spine", ""), []), slots.get(("neck", ""), [])
    if neck:
        slots["head", ""] = [neck.pop()]
    elif len(spine) > 4:
        slots["head", ""] = [spine.pop()]
        slots["spine", ""], slots["neck", ""] = spine[:4], spine[4:]


def _numbered_limbs(slots: dict[tuple[str, str], list[tuple[int, int]]], side: str, parents: tuple[int, ...]) -> None:
    """Tell "arm" and "leg": Mixamo's are the upper arm and the lower leg, elsewhere all joints of a limb."""
    shoulders = slots.get(("clavicle", side), [])
    if len(shoulders) > 1 and not any(slots.get((limb, side)) for limb in ("upper_arm", "arm")):
        slots["upper_arm", side] = [shoulders.pop()]  # SMPL: collar, shoulder, elbow, wrist
    if slots.get(("lower_leg", side)) and not any(slots.get((limb, side)) for limb in ("upper_leg", "leg")):
        slots["upper_leg", side] = slots.get(("hips", side), [])
    feet = slots.get(("foot", side), [])
    if len(feet) > 1 and ("toes", side) not in slots:
        slots["toes", side] = [feet.pop()]  # SMPL: ankle, foot
    for chain, limbs in CHAINS.items():
        bare = slots.get((chain, side), [])
        if not bare:
            continue
        first, second = limbs[:2]
        if (first, side) in slots:
            slots.setdefault((second, side), bare)
        elif (second, side) in slots:
            slots[first, side] = bare
        else:
            line = [bare[0][0], *(node for node, _ in bare[1:] if bare[0][0] in _ancestors(node, parents))]
            for limb, node in zip(limbs, line, strict=False):
                slots.setdefault((limb, side), [(node, 0)])


def _phalanges(members: list[tuple[int, int]], parents: tuple[int, ...]) -> list[tuple[int, int]]:
    """Phalanges 1 to 3 from the root outwards; a metacarpal before them (four in a row) does not count."""
    if not members:
        return []
    first = members[0][0]
    line = [node for node, _ in members if node == first or first in _ancestors(node, parents)]
    numbers = dict(members)
    if len(line) > 3 and numbers[line[0]] == 0:
        line = line[1:]
    return list(zip(line[:3], range(1, 4), strict=False))


def _complete(found: dict[str, int], parents: tuple[int, ...]) -> bool:
    """Whether all needed joints are there, each below the one that it must hang from."""
    if not all(slot in found for slot in NEEDED) or len({found[slot] for slot in NEEDED}) < len(NEEDED):
        return False
    pairs = [("head", "hips")]
    for side in SIDES:
        arm, leg = (
            [f"{side}_{end}_{limb}" if end else f"{side}_{last}" for end in ("upper", "lower", "")]
            for limb, last in (("arm", "hand"), ("leg", "foot"))
        )
        for chain in (arm, leg):
            pairs += [(chain[1], chain[0]), (chain[2], chain[1])]
    return all(found[above] in _ancestors(found[below], parents) for below, above in pairs)


def _ancestors(node: int, parents: tuple[int, ...]) -> list[int]:
    line = []
    while parents[node] >= 0:
        node = parents[node]
        line.append(node)
    return line


def _depth(node: int, parents: tuple[int, ...]) -> int:
    return len(_ancestors(node, parents))
