"""Names of joints as the usual programs write them."""

import pytest

from humansplat.data.rigged.skeleton import FINGERS, find_humanoid, understood

SIDES = {"left": ("Left", "L", "l"), "right": ("Right", "R", "r")}
CREATOR_SPINE = ["CC_Base_Waist", "CC_Base_Spine01", "CC_Base_Spine02"]
VROID_SPINE = ["J_Bip_C_Spine", "J_Bip_C_Chest", "J_Bip_C_UpperChest"]
CESIUM_SPINE = ["Skeleton_torso_joint_2", "torso_joint_3"]
TRUNKS = {
    "mixamo": ("mixamorig:Hips", [f"mixamorig:Spine{k}" for k in ("", 1, 2)], ["mixamorig:Neck"], "mixamorig:Head"),
    "biped": ("Bip01 Pelvis", ["Bip01 Spine", "Bip01 Spine1"], ["Bip01 Neck"], "Bip01 Head"),
    "unreal": ("pelvis", ["spine_01", "spine_02", "spine_03"], ["neck_01"], "head"),
    "character creator": ("CC_Base_Hip", CREATOR_SPINE, [f"CC_Base_NeckTwist0{k}" for k in (1, 2)], "CC_Base_Head"),
    "vroid": ("J_Bip_C_Hips", VROID_SPINE, ["J_Bip_C_Neck"], "J_Bip_C_Head"),
    "rigify": (
        "DEF-spine",
        [f"DEF-spine.00{k}" for k in (1, 2, 3)],
        ["DEF-spine.004", "DEF-spine.005"],
        "DEF-spine.006",
    ),
    "smpl": ("pelvis", ["spine1", "spine2", "spine3"], ["neck"], "head"),
    "cesium": ("Skeleton_torso_joint_1", CESIUM_SPINE, ["Skeleton_neck_joint_1"], "Skeleton_neck_joint_2"),
}
ARMS = {
    "mixamo": ["mixamorig:{0}Shoulder", "mixamorig:{0}Arm", "mixamorig:{0}ForeArm", "mixamorig:{0}Hand"],
    "biped": ["Bip01 {1} Clavicle", "Bip01 {1} UpperArm", "Bip01 {1} Forearm", "Bip01 {1} Hand"],
    "unreal": ["clavicle_{2}", "upperarm_{2}", "lowerarm_{2}", "hand_{2}"],
    "character creator": ["CC_Base_{1}_Clavicle", "CC_Base_{1}_Upperarm", "CC_Base_{1}_Forearm", "CC_Base_{1}_Hand"],
    "vroid": ["J_Bip_{1}_Shoulder", "J_Bip_{1}_UpperArm", "J_Bip_{1}_LowerArm", "J_Bip_{1}_Hand"],
    "rigify": ["DEF-shoulder.{1}", "DEF-upper_arm.{1}", "DEF-forearm.{1}", "DEF-hand.{1}"],
    "smpl": ["{3}_collar", "{3}_shoulder", "{3}_elbow", "{3}_wrist"],
    "cesium": ["", "Skeleton_arm_joint_{1}__4_", "Skeleton_arm_joint_{1}__3_", "Skeleton_arm_joint_{1}__2_"],
}
LEGS = {
    "mixamo": ["mixamorig:{0}UpLeg", "mixamorig:{0}Leg", "mixamorig:{0}Foot", "mixamorig:{0}ToeBase"],
    "biped": ["Bip01 {1} Thigh", "Bip01 {1} Calf", "Bip01 {1} Foot", "Bip01 {1} Toe0"],
    "unreal": ["thigh_{2}", "calf_{2}", "foot_{2}", "ball_{2}"],
    "character creator": ["CC_Base_{1}_Thigh", "CC_Base_{1}_Calf", "CC_Base_{1}_Foot", "CC_Base_{1}_ToeBase"],
    "vroid": ["J_Bip_{1}_UpperLeg", "J_Bip_{1}_LowerLeg", "J_Bip_{1}_Foot", "J_Bip_{1}_ToeBase"],
    "rigify": ["DEF-thigh.{1}", "DEF-shin.{1}", "DEF-foot.{1}", "DEF-toe.{1}"],
    "smpl": ["{3}_hip", "{3}_knee", "{3}_ankle", "{3}_foot"],
    "cesium": ["leg_joint_{1}_1", "leg_joint_{1}_2", "leg_joint_{1}_3", "leg_joint_{1}_5"],
}
EXTRAS = {
    "character creator": {"CC_Base_{1}_Upperarm": "CC_Base_{1}_UpperarmTwist01", "CC_Base_Hip": "CC_Base_Pelvis"},
    "rigify": {"DEF-upper_arm.{1}": "DEF-upper_arm.{1}.001", "DEF-spine": "DEF-pelvis.{1}"},
    "unreal": {"lowerarm_{2}": "lowerarm_twist_01_{2}", "hand_{2}": "ik_hand_{2}"},
    "mixamo": {"mixamorig:Head": "mixamorig:HeadTop_End", "mixamorig:{0}ToeBase": "mixamorig:{0}Toe_End"},
}
HANDS = {
    "mixamo": ("mixamorig:{0}Hand{finger}{k}", ("Thumb", "Index", "Middle", "Ring", "Pinky")),
    "biped": ("Bip01 {1} Finger{finger}{b}", ("0", "1", "2", "3", "4")),
    "unreal": ("{finger}_0{k}_{2}", ("thumb", "index", "middle", "ring", "pinky")),
    "character creator": ("CC_Base_{1}_{finger}{k}", ("Thumb", "Index", "Mid", "Ring", "Pinky")),
    "vroid": ("J_Bip_{1}_{finger}{k}", ("Thumb", "Index", "Middle", "Ring", "Little")),
    "rigify": ("DEF-{finger}.0{k}.{1}", ("thumb", "f_index", "f_middle", "f_ring", "f_pinky")),
}


class Rig:
    """A tree of names."""

    def __init__(self) -> None:
        self.names: list[str] = ["Armature"]
        self.parents = [-1]

    def add(self, name: str, above: str) -> str:
        self.parents.append(self.names.index(above))
        self.names.append(name)
        return name


def make(kind: str) -> tuple[Rig, dict[str, str]]:
    """The rig of a program, and what its joints are."""
    rig, known = Rig(), {}
    hips, spine, neck, head = TRUNKS[kind]
    above = known["hips"] = rig.add(hips, "Armature")
    for number, name in enumerate(spine, 1):
        above = known[f"spine{number}"] = rig.add(name, above)
    chest = above
    for number, name in enumerate(neck, 1):
        above = known[f"neck{number}"] = rig.add(name, above)
    known["head"] = rig.add(head, above)
    for side, spelled in SIDES.items():
        words = (*spelled, side)
        for root, chain, slots in (
            (chest, ARMS[kind], ("clavicle", "upper_arm", "lower_arm", "hand")),
            (hips, LEGS[kind], ("upper_leg", "lower_leg", "foot", "toes")),
        ):
            above = root
            for name, slot in zip(chain, slots, strict=True):
                if name:
                    above = known[f"{side}_{slot}"] = rig.add(name.format(*words), above)
        if kind in HANDS:
            form, fingers = HANDS[kind]
            for slot, finger in zip(FINGERS, fingers, strict=True):
                above = known[f"{side}_hand"]
                for k in (1, 2, 3):
                    name = form.format(*words, finger=finger, k=k, b="" if k == 1 else k - 1)
                    above = known[f"{side}_{slot}{k}"] = rig.add(name, above)
        for above, name in EXTRAS.get(kind, {}).items():
            if name.format(*words) not in rig.names:
                rig.add(name.format(*words), above.format(*words))
    return rig, known


@pytest.mark.parametrize("kind", sorted(TRUNKS))
def test_the_usual_rigs_are_understood(kind: str) -> None:
    rig, known = make(kind)
    found = find_humanoid(tuple(rig.names), tuple(rig.parents), frozenset(range(1, len(rig.names))))
    assert {slot: rig.names[node] for slot, node in found.items()} == known


def test_rigs_of_others_are_not_taken_for_humans() -> None:
    horse = Rig()
    horse.add("Hips", "Armature")
    for leg in ("front_left_thigh", "front_right_thigh", "back_left_thigh"):
        horse.add(leg, "Hips")
    assert find_humanoid(tuple(horse.names), tuple(horse.parents), frozenset(range(1, 5))) == {}
    rig, _ = make("mixamo")
    torn = list(rig.parents)
    torn[rig.names.index("mixamorig:LeftForeArm")] = 0  # the forearm does not hang on the upper arm
    assert find_humanoid(tuple(rig.names), tuple(torn), frozenset(range(1, len(torn)))) == {}
    assert find_humanoid((), (), frozenset()) == {}


def test_vrm_tells_the_joints_itself() -> None:
    rig, known = make("vroid")
    spelled = {"upper_arm": "UpperArm", "lower_arm": "LowerArm", "upper_leg": "UpperLeg", "lower_leg": "LowerLeg"}
    order = {"spine1": "spine", "spine2": "chest", "spine3": "upperChest", "neck1": "neck"}
    vrm = {}
    for slot, name in known.items():
        side, _, limb = slot.rpartition("_") if slot.startswith(("left", "right")) else ("", "", slot)
        side, limb = slot.split("_", 1) if side else ("", slot)
        if limb[:-1] in FINGERS:
            word = limb[:-1].capitalize() + {"1": "Proximal", "2": "Intermediate", "3": "Distal"}[limb[-1]]
        else:
            word = spelled.get(limb, {"clavicle": "Shoulder"}.get(limb, limb.capitalize() if side else limb))
        vrm[side + word if side else order.get(limb, limb)] = rig.names.index(name)
    nonsense = tuple(f"bone{index}" for index in range(len(rig.names)))
    found = find_humanoid(nonsense, tuple(rig.parents), frozenset(range(1, len(nonsense))), vrm)
    assert {slot: rig.names[node] for slot, node in found.items()} == known


@pytest.mark.parametrize(
    "name", ["upperarm_twist_01_l", "J_Sec_Hair1_01", "CC_Base_FacialBone", "ik_hand_l", "Head_end", ""]
)
def test_helpers_are_no_joints_of_a_human(name: str) -> None:
    assert understood(name).slot == ""
