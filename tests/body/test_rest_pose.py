"""The default body as a model of the SMPL family: real limbs, of which every answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.body.parts import NUM_PARTS, makehuman_joint_part
from humansplat.body.rest_pose import HEIGHT
from humansplat.body.smpl import SmplBody
from humansplat.body.smpl_files import SmplFile
from humansplat.geometry.rotations import matrix_to_axis_angle, rotation_between


@pytest.fixture(scope="module")
def t_pose(body):
    """The default body's mean adult with its arms held out sideways."""
    joints, names = body.pose({}).joints, list(body.joint_names)
    parameters, above = body.neutral(), {"L": torch.eye(3), "R": torch.eye(3)}
    for joint, end in (("upperarm01", "lowerarm01"), ("lowerarm01", "wrist"), ("wrist", "finger3-1")):
        for side, x in (("L", 1.0), ("R", -1.0)):
            index = names.index(f"{joint}.{side}")
            bone = above[side] @ (joints[names.index(f"{end}.{side}")] - joints[index])
            turned = rotation_between(bone, torch.tensor([x, 0.0, 0.0])) @ above[side]
            parameters["rotations"][index] = matrix_to_axis_angle(above[side].T @ turned)
            above[side] = turned
    return body.pose(parameters)


@pytest.fixture(scope="module")
def smpl_of_anny(body, t_pose):
    """Its 163 joints become SMPL's 24: each the first joint of its part, for the hands the middle knuckle."""
    labels = [makehuman_joint_part(name) for name in body.joint_names]
    chosen = [labels.index(part) for part in range(NUM_PARTS - 2)]
    chosen += [body.joint_names.index(f"finger3-1.{side}") for side in "LR"]
    joints = t_pose.joints[chosen].double()
    weights = torch.zeros(len(body.parts), NUM_PARTS).index_add_(1, torch.tensor(labels), body.weights)
    vertices = t_pose.vertices.double()
    ones = torch.ones(1, 1, dtype=torch.float64)
    with_one = torch.cat([vertices, ones.expand(len(vertices), 1)], dim=1)
    regressor = torch.cat([joints, ones.expand(NUM_PARTS, 1)], dim=1) @ torch.linalg.pinv(with_one)
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    arrays = {
        "v_template": vertices.numpy(),
        "f": body.faces.numpy(),
        "shapedirs": np.zeros((len(vertices), 3, 1)),
        "posedirs": np.zeros((len(vertices), 3, 207), np.float32),
        "J_regressor": regressor.numpy(),
        "kintree_table": np.array([parents, range(NUM_PARTS)]),
        "weights": weights.numpy(),
    }
    return SmplBody(SmplFile(name="smpl", gender="neutral", path=Path("anny.npz"), arrays=arrays))


def test_every_point_of_the_skin_is_named_as_on_the_default_body(body, t_pose, smpl_of_anny):
    before = (t_pose.vertices - body.canonical).norm(dim=-1)
    error = (smpl_of_anny.canonical - body.canonical).norm(dim=-1)
    assert before.max() > 0.5
    assert error.mean() < 0.001
    assert error.max() < 0.03  # shoulders and wrists, where 24 joints bend otherwise than 163


def test_the_parts_are_those_of_the_default_body(body, smpl_of_anny):
    assert torch.equal(smpl_of_anny.parts, body.parts)


def test_the_default_body_is_as_high_as_it_is_held_to_be(body):
    assert abs(float(body.canonical[:, 1].max()) - HEIGHT) < 1e-3
