import math

import pytest
import torch
import torch.nn.functional as F

from humansplat.body.noise import BodyNoise
from humansplat.body.noise_measure import BodyErrors, body_bones, estimated_levels, pose_errors, report, seen_pose
from humansplat.config import NoiseLevels
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

NUM = 200


def errors_between(body, found, found_viewing, true, viewing) -> BodyErrors:
    poses = [
        seen_pose(body.skeleton, parameters["rotations"], body.joints_only(**parameters), seen_along)
        for parameters, seen_along in ((found, found_viewing), (true, viewing))
    ]
    place = found["translation"] - true["translation"]
    return BodyErrors(
        **pose_errors(*poses, body.joint_names),
        phenotypes=found["phenotypes"] - true["phenotypes"],
        place=place,
    )


def posed(body, num: int) -> dict[str, torch.Tensor]:
    parameters = body.neutral(num)
    pose = 0.3 * torch.randn(num, len(body.joint_names), 3, generator=torch.Generator().manual_seed(1))
    return {**parameters, "rotations": pose}


def test_measured_levels_are_those_that_were_drawn(body):
    levels = NoiseLevels(limb_depth=8.0, limb_picture=3.0, root_lean=4.0, root_turn=7.0, root_roll=2.0)
    true, viewing = posed(body, NUM), torch.tensor([0.0, 0.0, -1.0]).expand(NUM, 3)
    noise = BodyNoise(levels, body.joint_names, body.skeleton)
    found = noise(**true, viewing=viewing, amount=torch.ones(NUM), generator=torch.Generator().manual_seed(0))
    errors = errors_between(body, found, viewing, true, viewing)
    bones = body_bones(body.joint_names)
    for robust, tolerance in ((False, 0.15), (True, 0.25)):
        measured = estimated_levels(errors, bones, robust)
        for name, value in vars(levels).items():
            assert getattr(measured, name) == pytest.approx(value, rel=tolerance), name
    lines = report(errors, bones, body.phenotype_names)
    assert len(lines) == 1 + 8 + 6 + 1
    assert lines[1].startswith("chest")


def test_the_same_body_in_a_turned_world_has_no_errors(body):
    """A fit has a world of its own: only what the camera sees is compared."""
    true, viewing = posed(body, 1), F.normalize(torch.tensor([[0.3, -0.2, -1.0]]), dim=-1)
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.7, 0.0]))
    rotations = true["rotations"].clone()
    rotations[:, 0] = matrix_to_axis_angle(turn @ axis_angle_to_matrix(rotations[:, 0]))
    errors = errors_between(body, {**true, "rotations": rotations}, viewing @ turn.mT, true, viewing)
    assert errors.root.abs().max() < 1e-5
    assert errors.bones.abs().max() < 1e-5
    assert errors.ends.abs().max() < 1e-5


def test_a_knee_bent_away_swings_its_bone_and_foot_in_depth(body):
    true, viewing = body.neutral(1), torch.tensor([[0.0, 0.0, -1.0]])
    rotations = true["rotations"].clone()
    rotations[0, body.joint_names.index("lowerleg01.L"), 0] = 0.2  # about +X: the foot goes back
    errors = errors_between(body, {**true, "rotations": rotations}, viewing, true, viewing)
    bones = body_bones(body.joint_names)
    for index, bone in enumerate(bones):
        expected = 0.2 if bone.joint in ("lowerleg01.L", "foot.L") else 0.0
        assert errors.bones[0, index].tolist() == pytest.approx([expected, 0.0, 0.0], abs=1e-5), bone
    knee = [bone.joint for bone in bones].index("lowerleg01.L")
    assert errors.swings[0, knee].abs().item() == pytest.approx(0.2, rel=0.05)
    assert errors.ends[0, knee, 2] < -0.05  # away from the camera
    assert errors.ends[0, knee, :2].abs().max() < 0.02
    assert errors.towards[0, knee] < math.sin(math.radians(20))
