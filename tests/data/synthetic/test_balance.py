import numpy as np
import pytest

from humansplat.data.synthetic.balance import Balancer, should_stand
from humansplat.data.synthetic.clips import clip_pose, followable
from humansplat.data.synthetic.figure import Template, joint_transforms
from humansplat.data.synthetic.limbs import turn
from humansplat.data.synthetic.makehuman import Motion, parse_bvh
from humansplat.data.synthetic.poses import procedural_pose, to_array

from .conftest import bvh_text


@pytest.fixture(scope="module")
def balancer(template: Template) -> Balancer:
    return Balancer(template, template.canonical, template.joints)


def test_rest_stands_and_a_bow_without_counterweight_does_not(balancer: Balancer, template: Template) -> None:
    rest = balancer.judge(to_array(template, {}))
    assert rest.balanced
    assert rest.carrying.all()
    assert rest.heights.max() < 0.005
    bow = balancer.judge(to_array(template, {"root": turn(x=0.5)}))
    assert not bow.balanced
    assert bow.outside > 0.05


def test_the_centre_of_mass_lies_in_the_pelvis_of_who_stands(balancer: Balancer, template: Template) -> None:
    center = balancer.mass_center(template.joints)
    height = template.canonical[template.skin_ids, 1].max()
    assert center[1] / height == pytest.approx(0.55, abs=0.05)
    assert abs(center[0]) < 0.01


@pytest.mark.parametrize("legs", ["standing", "wide", "walking", "squatting", "lunging", "kicking"])
def test_legs_are_set_on_the_ground_under_the_centre_of_mass(
    balancer: Balancer, template: Template, legs: str
) -> None:
    balanced = []
    for seed in range(5):
        pose = procedural_pose(template, np.random.default_rng(seed), legs, ("hanging", "side"))
        rotations = to_array(template, pose)
        settled = balancer.settle(rotations)
        after = balancer.judge(settled)
        balanced.append(after.balanced)
        orthogonal = settled @ settled.swapaxes(-1, -2)
        np.testing.assert_allclose(orthogonal, np.broadcast_to(np.eye(3), orthogonal.shape), atol=1e-4)
        legs_only = [k for k, name in enumerate(template.joint_names) if "leg" not in name and "foot" not in name]
        np.testing.assert_array_equal(settled[legs_only], rotations[legs_only])
        if legs in ("standing", "wide"):
            assert after.heights.max() < 0.02
        transforms = joint_transforms(template.joints, template.joint_parents, settled)
        assert np.isfinite(transforms).all()
    assert sum(balanced) >= 4


def test_who_sits_runs_or_flies_is_left_alone() -> None:
    assert not any(should_stand(name) for name in ("sitting/hip/hip", "wide running/free/free", "fly01~standing02"))
    assert should_stand("standing/raised/hip")


CLIP = """HIERARCHY
ROOT Root
{ OFFSET 0 0 0
CHANNELS 6 Xposition Yposition Zposition Xrotation Yrotation Zrotation
 JOINT Hips
 { OFFSET 0 0 0
 CHANNELS 3 Xrotation Yrotation Zrotation
LEGS }
 JOINT Spine3
 { OFFSET 0 0 3
 CHANNELS 3 Xrotation Yrotation Zrotation
ARMS  JOINT Head
  { OFFSET 0 0 3
  CHANNELS 3 Xrotation Yrotation Zrotation
  End Site
  { OFFSET 0 0 1 } } } }
MOTION
Frames: 1
Frame Time: 0.04
"""


def _chain(names: tuple[str, ...], x: float, bone: str) -> str:
    blocks = [f"JOINT {name}\n{{ OFFSET {x if not k else bone}\nCHANNELS 3 Xrotation Yrotation Zrotation\n"
              for k, name in enumerate(names)]  # fmt: skip
    return "".join(blocks) + f"End Site\n{{ OFFSET {bone}\n}}\n" + "}\n" * len(names)


def game_clip() -> Motion:
    """The skeleton of MakeHuman's animations in a T pose, the left thigh lifted forwards by 90 degrees."""
    legs = "".join(
        _chain((f"UpLeg_{s}", f"LoLeg_{s}", f"Foot_{s}"), x, "0 0 -4").replace(f"OFFSET {x}\n", f"OFFSET {x} 0 0\n")
        for s, x in (("L", 1.0), ("R", -1.0))
    )
    arms = "".join(
        _chain((f"UpArm_{s}", f"LoArm_{s}", f"Hand_{s}"), x, f"{2 * x} 0 0").replace(
            f"OFFSET {x}\n", f"OFFSET {x} 0 2\n"
        )
        for s, x in (("L", 1.0), ("R", -1.0))
    )
    text = CLIP.replace("LEGS", legs).replace("ARMS", arms).replace("} }", "}\n}").replace("} }", "}\n}")
    text = text.replace("{ ", "{\n").replace("1 }", "1\n}")
    numbers = ["0"] * (6 + 3 * 15)
    numbers[9] = "90"  # the left thigh about the file's X axis; house: thigh from down to forwards or backwards
    return parse_bvh(text + " ".join(numbers) + "\n", "made up")


def test_a_clip_of_another_skeleton_is_followed_by_the_directions_of_its_bones(template: Template) -> None:
    clip = game_clip()
    assert followable(clip)
    assert not followable(parse_bvh(bvh_text(0.0), "test"))
    assert clip.parents[clip.joint_names.index("LoLeg_L")] == clip.joint_names.index("UpLeg_L")
    rotations = to_array(template, clip_pose(template, clip, 0, np.random.default_rng(0)))
    transforms = joint_transforms(template.joints, template.joint_parents, rotations)
    places = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]

    def bone(start: str, end: str) -> np.ndarray:
        way = places[template.joint(end)] - places[template.joint(start)]
        return way / np.linalg.norm(way)

    assert bone("upperarm01.L", "lowerarm01.L")[0] > 0.95
    assert bone("upperarm01.R", "lowerarm01.R")[0] < -0.95
    assert abs(bone("upperleg01.L", "lowerleg01.L")[2]) > 0.95
    assert bone("upperleg01.R", "lowerleg01.R")[1] < -0.95
