import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.figure import Figure, Template, joint_transforms, rest_shape
from humansplat.data.synthetic.limb_kinds import ARM_KINDS, LEG_KINDS
from humansplat.data.synthetic.limbs import aim, turn, unit
from humansplat.data.synthetic.makehuman import parse_bvh
from humansplat.data.synthetic.poses import (
    blend,
    collides,
    draw_pose,
    leg_room,
    motion_pose,
    procedural_pose,
    to_array,
)

from .conftest import bvh_text


def test_aim_turns_one_direction_into_the_other_whatever_the_twist() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, end = unit(*rng.normal(size=3)), unit(*rng.normal(size=3))
        rotation = aim(start, end, float(rng.normal()))
        np.testing.assert_allclose(rotation @ start, end, atol=1e-9)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_the_dressers_skinning_equals_the_body_model(template: Template) -> None:
    rng = np.random.default_rng(0)
    body = template.body
    rotations = Rotation.from_rotvec(0.3 * rng.normal(size=(len(template.joint_names), 3)))
    shape = torch.from_numpy(rng.uniform(0.3, 0.7, len(body.phenotype_names))).float()
    rest, joints = rest_shape(body, shape)
    transforms = joint_transforms(joints, template.joint_parents, rotations.as_matrix().astype(np.float32))
    vectors = torch.from_numpy(rotations.as_rotvec()).float()
    posed = body.base_mesh(shape, vectors, torch.from_numpy(joints[0])).numpy()
    figure = Figure(rest=rest, transforms=transforms)
    np.testing.assert_allclose(figure.pose(rest, template.weights), posed, atol=1e-4)


def test_bvh_poses_come_into_the_house_axes() -> None:
    """The file is Z up and faces -Y: a turn about its Y axis is one about our -Z axis... by the same angle."""
    pose = motion_pose(parse_bvh(bvh_text(30.0), "test"), 0)
    np.testing.assert_allclose(pose["upperarm01.L"], turn(z=-np.radians(30)), atol=1e-6)


@pytest.mark.parametrize("legs", sorted(LEG_KINDS))
def test_limbs_point_where_they_are_aimed(template: Template, legs: str) -> None:
    pose = procedural_pose(template, np.random.default_rng(1), legs, ("raised", "hip"))
    rotations = to_array(template, pose)
    transforms = joint_transforms(template.joints, template.joint_parents, rotations)
    places = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]

    def place(name: str) -> np.ndarray:
        return places[template.joint(name)]

    assert place("wrist.L")[1] > place("head")[1] - 0.1
    assert place("wrist.R")[1] < place("upperarm01.R")[1]
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-5
    )
    if legs == "sitting":
        assert place("lowerleg01.L")[2] > place("upperleg01.L")[2] + 0.2
    angle = leg_room(template, transforms)
    if legs == "standing":
        assert angle < 0.6
    if legs in ("running", "lunging"):
        assert angle > 0.6


def test_the_heading_is_taken_out(template: Template) -> None:
    rotations = to_array(template, {"root": turn(y=1.0) @ turn(x=0.2)})
    forward = rotations[template.joint("root")] @ [0, 0, 1]
    assert forward[0] == pytest.approx(0, abs=1e-6)
    assert forward[2] > 0.9


def test_half_a_blend_is_half_the_angle() -> None:
    mixed = blend({"a": turn(x=0.2)}, {"a": turn(x=0.6), "b": turn(y=1.0)}, 0.5)
    np.testing.assert_allclose(mixed["a"], turn(x=0.4), atol=1e-9)
    np.testing.assert_allclose(mixed["b"], turn(y=0.5), atol=1e-9)


def test_drawn_poses_are_free_of_collisions_and_repeatable(template: Template) -> None:
    motions = {"standing01": parse_bvh(bvh_text(10.0), "test")}
    names = set()
    for seed in range(12):
        first, name = draw_pose(template, motions, np.random.default_rng(seed), procedural=True)
        second, _ = draw_pose(template, motions, np.random.default_rng(seed), procedural=True)
        np.testing.assert_array_equal(first, second)
        assert not collides(template, first)
        names.add(name)
    assert len(names) >= 8
    assert sum(ARM_KINDS.values()) == pytest.approx(1)


def test_arms_through_the_chest_collide(template: Template) -> None:
    rest = to_array(template, {})
    assert not collides(template, rest)
    inwards = to_array(template, {"upperarm01.L": turn(z=-1.2), "upperarm01.R": turn(z=1.2)})
    assert collides(template, inwards)
