import numpy as np
import pytest

from humansplat.data.synthetic import poses
from humansplat.data.synthetic.figure import Template, joint_transforms
from humansplat.data.synthetic.limb_kinds import ARM_KINDS, LEG_KINDS
from humansplat.data.synthetic.limbs import Hinged, Rotations, arm_rotations, leg_rotations, normalized, turn
from humansplat.data.synthetic.makehuman import parse_bvh
from humansplat.data.synthetic.poses import collides, draw_pose, motion_pose, to_array
from humansplat.data.synthetic.wide_limbs import (
    MAX_ELBOW,
    MAX_KNEE,
    WIDE_ARM_KINDS,
    WIDE_LEG_KINDS,
    draw_wide_arm,
    draw_wide_legs,
)
from humansplat.data.synthetic.wide_poses import draw_trunk, loosened, wide_pose

from .conftest import bvh_text

WIDE_LEGS = ("free", "stepping", "kick_front", "kick_side", "kick_back", "side_lunge", "kneeling")
WIDE_ARMS = ("free", "guarding", "crossing")


def frames(template: Template, pose: Rotations) -> tuple[np.ndarray, np.ndarray]:
    """World rotation and place of each joint, from the pose as it is (no heading taken out)."""
    rotations = np.stack([np.asarray(pose.get(name, np.eye(3))) for name in template.joint_names]).astype(np.float32)
    transforms = joint_transforms(template.joints, template.joint_parents, rotations)
    places = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]
    return transforms[..., :3], places


def bone(template: Template, places: np.ndarray, start: str, end: str) -> np.ndarray:
    return normalized((places[template.joint(end)] - places[template.joint(start)]).astype(np.float64))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))


@pytest.mark.parametrize("kind", WIDE_LEGS)
def test_knees_fold_backwards_only_whatever_the_thigh_does(template: Template, kind: str) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        side, mirror = ("L", 1.0) if seed % 2 else ("R", -1.0)
        trunk = draw_trunk(rng, kind, mirror)
        flip = np.diag([mirror, 1.0, 1.0])
        limb = draw_wide_legs(rng, kind, flip @ trunk.root @ flip)[seed % 4 // 2]
        turned, places = frames(template, trunk.rotations() | leg_rotations(template, limb, side, trunk.root, rng))
        thigh = bone(template, places, f"upperleg01.{side}", f"lowerleg01.{side}")
        shank = bone(template, places, f"lowerleg01.{side}", f"foot.{side}")
        np.testing.assert_allclose(thigh, limb.first * [mirror, 1, 1], atol=1e-4)
        assert angle(thigh, shank) == pytest.approx(limb.flexion, abs=0.03)
        assert limb.flexion <= MAX_KNEE
        # In the thigh's own axes (the world's at rest) the kneecap looks forwards: the shank stays in that plane.
        own = turned[template.joint(f"upperleg01.{side}")].T @ shank
        rest = turned[template.joint(f"upperleg01.{side}")].T @ thigh
        assert abs(own[0] - rest[0]) < 0.2
        assert own[2] <= rest[2] + 0.03


@pytest.mark.parametrize("kind", WIDE_ARMS)
def test_elbows_turn_about_their_hinge_and_never_backwards(template: Template, kind: str) -> None:
    rest_axis = {
        side: np.cross(
            bone(template, template.joints, f"upperarm01.{side}", f"lowerarm01.{side}"),
            bone(template, template.joints, f"lowerarm01.{side}", f"wrist.{side}"),
        )
        for side in "LR"
    }
    for seed in range(25):
        rng = np.random.default_rng(seed)
        side, mirror = ("L", 1.0) if seed % 2 else ("R", -1.0)
        limb = draw_wide_arm(rng, kind)
        turned, places = frames(template, arm_rotations(template, limb, side, rng))
        upper = bone(template, places, f"upperarm01.{side}", f"lowerarm01.{side}")
        fore = bone(template, places, f"lowerarm01.{side}", f"wrist.{side}")
        assert angle(upper, fore) == pytest.approx(limb.flexion, abs=0.03)
        assert 0 <= limb.flexion <= MAX_ELBOW
        assert angle(upper, limb.first * [mirror, 1, 1]) < 0.03
        axis = turned[template.joint(f"upperarm02.{side}")] @ normalized(rest_axis[side])
        assert axis @ np.cross(upper, fore) >= -1e-3


def test_an_arm_turned_outwards_lifts_the_hand_on_both_sides(template: Template) -> None:
    aside = np.array([1.0, 0.0, 0.0])
    for side in "LR":
        heights = []
        for twist in (-1.0, 0.0, 1.0):
            pose = arm_rotations(template, Hinged(aside, twist, 1.5), side, np.random.default_rng(0))
            _, places = frames(template, pose)
            heights.append(places[template.joint(f"wrist.{side}")][1])
        assert heights[0] < heights[1] - 0.1 < heights[2] - 0.2


def test_a_leg_turned_outwards_brings_the_foot_of_a_lifted_knee_inwards(template: Template) -> None:
    for side, mirror in (("L", 1.0), ("R", -1.0)):
        limb = Hinged(np.array([0.0, 0.0, 1.0]), 0.5, 1.5)
        pose = leg_rotations(template, limb, side, np.eye(3), np.random.default_rng(0))
        _, places = frames(template, pose)
        assert (
            mirror * (places[template.joint(f"foot.{side}")] - places[template.joint(f"lowerleg01.{side}")])[0] < -0.1
        )


def test_wide_poses_reach_further_than_usual_ones_and_mostly_stand(template: Template) -> None:
    highest, standing, leaning, count = [], 0, [], 60
    for seed in range(count):
        pose, _ = wide_pose(template, np.random.default_rng(seed))
        turned, places = frames(template, pose)
        down = [-bone(template, places, f"upperleg01.{side}", f"lowerleg01.{side}")[1] for side in "LR"]
        standing += max(down) > 0.6
        feet = [places[template.joint(f"foot.{side}")][1] for side in "LR"]
        highest.append(max(feet) - min(feet))
        leaning.append(np.arccos(np.clip(turned[template.joint("spine01")][1, 1], -1, 1)))
    assert standing > 0.8 * count
    assert max(highest) > 0.9
    assert np.mean(np.array(leaning) > 0.5) > 0.2


def test_shares_of_wide_people_and_kinds(template: Template) -> None:
    assert sum(WIDE_LEG_KINDS.values()) == pytest.approx(1)
    assert sum(WIDE_ARM_KINDS.values()) == pytest.approx(1)
    assert set(WIDE_ARM_KINDS) - set(WIDE_ARMS) <= set(ARM_KINDS)
    assert set(WIDE_LEG_KINDS) - set(WIDE_LEGS) - {"high_kick"} <= set(LEG_KINDS)
    motions = {"standing01": parse_bvh(bvh_text(10.0), "test")}
    wide = 0
    for seed in range(100):
        _, name = draw_pose(template, motions, np.random.default_rng(seed), procedural=True)
        wide += bool(set(name.split("/")) & {*WIDE_LEGS, *WIDE_ARMS})
    assert 0.25 < wide / 100 < 0.5


def test_people_of_held_out_poses_never_get_wide_ones(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    motions = {"standing05": parse_bvh(bvh_text(10.0), "test")}
    drawn = [draw_pose(template, motions, np.random.default_rng(seed), procedural=False) for seed in range(6)]
    monkeypatch.setattr(poses, "WIDE_SHARE", 1.0)
    for seed, (rotations, name) in enumerate(drawn):
        again, same = draw_pose(template, motions, np.random.default_rng(seed), procedural=False)
        np.testing.assert_array_equal(again, rotations)
        assert set(same.split("~")) == set(name.split("~")) == {"standing05"}


def test_a_loosened_motion_keeps_its_hinges(template: Template) -> None:
    motion = motion_pose(parse_bvh(bvh_text(30.0), "test"), 0)
    for seed in range(20):
        pose = loosened(template, motion, np.random.default_rng(seed), 0.4)
        _, places = frames(template, pose)
        for side in "LR":
            elbow = angle(
                bone(template, places, f"upperarm01.{side}", f"lowerarm01.{side}"),
                bone(template, places, f"lowerarm01.{side}", f"wrist.{side}"),
            )
            knee = angle(
                bone(template, places, f"upperleg01.{side}", f"lowerleg01.{side}"),
                bone(template, places, f"lowerleg01.{side}", f"foot.{side}"),
            )
            assert elbow <= MAX_ELBOW
            assert knee <= MAX_KNEE


def test_a_knee_in_the_chest_and_a_shank_through_the_other_thigh_collide_in_wide_poses(template: Template) -> None:
    folded = to_array(template, {"upperleg01.L": turn(x=-1.7), "spine04": turn(x=1.3), "spine03": turn(x=0.5)})
    crossed = to_array(template, {"upperleg01.L": turn(x=-1.4) @ turn(y=0.9), "lowerleg01.L": turn(x=2.2)})
    assert collides(template, folded, wide=True)
    assert collides(template, crossed, wide=True)
    assert not collides(template, to_array(template, {}), wide=True)
