import pytest
import torch

from humansplat.body.fit_freedoms import PoseSpace, all_freedoms, left_jacobian, relaxed_hands
from humansplat.geometry.rotations import axis_angle_to_matrix


@pytest.fixture(scope="module")
def space(body):
    names = list(body.joint_names)
    return PoseSpace(names, dict(zip(names, body.pose({}).joints, strict=True)))


def posed(body, space, **degrees):
    """Joints by name of the mean adult with some angles bent."""
    angles = torch.zeros(len(space.freedoms))
    for name, value in degrees.items():
        angles[space.index[name.replace("__", ".")]] = torch.deg2rad(torch.tensor(float(value)))
    return joints_of(body, space, angles)


def joints_of(body, space, angles):
    from humansplat.geometry.rotations import matrix_to_axis_angle

    joints = body.pose({"rotations": matrix_to_axis_angle(space.rotations(angles))}).joints
    return dict(zip(body.joint_names, joints, strict=True))


def test_angles_mean_what_their_names_say(body, space):
    rest = posed(body, space)
    cases = [  # angle, joint that moves, axis, sign
        ("spine_flexion", "head", 2, 1), ("spine_tilt_left", "head", 0, 1), ("neck_flexion", "head", 2, 1),
        ("arm_raise__L", "wrist.L", 1, 1), ("arm_raise__R", "wrist.R", 1, 1), ("arm_forward__R", "wrist.R", 2, 1),
        ("elbow_flexion__L", "wrist.L", 2, 1), ("hip_flexion__L", "foot.L", 2, 1),
        ("hip_abduction__L", "foot.L", 0, 1), ("hip_abduction__R", "foot.R", 0, -1),
        ("knee_flexion__R", "foot.R", 2, -1), ("clavicle_raise__L", "wrist.L", 1, 1),
    ]  # fmt: skip
    for angle, joint, axis, sign in cases:
        moved = posed(body, space, **{angle: 30.0})[joint] - rest[joint]
        assert sign * moved[axis] > 0.02, f"{angle} moves {joint} by {moved.tolist()}"


def test_the_rest_pose_lies_within_the_limits_and_so_does_the_prior(space):
    assert (space.lower < 0).all()
    assert (space.upper > 0).all()
    assert ((space.lower < space.mean) & (space.mean < space.upper)).all()


def test_the_same_angles_on_the_other_side_are_the_mirror_image(body, space, rng):
    angles = space.mean + space.std * torch.randn(len(space.freedoms), generator=rng)
    joints, mirrored = joints_of(body, space, angles), joints_of(body, space, space.mirrored(angles))
    for name, position in joints.items():
        other = name[:-1] + {"L": "R", "R": "L"}[name[-1]] if name.endswith((".L", ".R")) else name
        torch.testing.assert_close(mirrored[other], position * torch.tensor([-1.0, 1, 1]), atol=3e-3, rtol=0)


def test_spins_are_the_derivative_of_rotations(space, rng):
    angles = 0.5 * torch.randn(len(space.freedoms), generator=rng)
    spins = space.spins(angles)
    step = 1e-3
    for column in range(0, len(space.freedoms), 3):
        nudge = torch.zeros_like(angles)
        nudge[column] = step
        turn = space.rotations(angles + nudge) @ space.rotations(angles - nudge).mT  # exp(2 step spin)
        vee = torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], dim=-1)
        torch.testing.assert_close(vee / (2 * step), spins[..., column], atol=2e-3, rtol=0)


def test_left_jacobian_is_smooth_at_zero():
    tiny = left_jacobian(torch.tensor([[1e-4, 0.0, 0.0], [0.0, 0.0, 0.0], [0.009, 0.0, 0.0], [0.011, 0.0, 0.0]]))
    torch.testing.assert_close(tiny[1], torch.eye(3))
    torch.testing.assert_close(tiny[2], tiny[3], atol=2e-3, rtol=0)


def test_relaxed_fingers_bend_towards_the_palm(body):
    rest = body.pose({})
    hands = body.pose({"rotations": relaxed_hands(body)})
    index = body.joint_names.index
    for side in "LR":
        moved = (hands.joints - rest.joints)[index(f"finger3-3.{side}")]
        assert moved[1] < -0.005  # the palms face down at rest
        assert moved.norm() < 0.06
    torch.testing.assert_close(hands.joints[index("wrist.L")], rest.joints[index("wrist.L")])


def test_every_side_has_every_freedom_once():
    names = [freedom.name for freedom in all_freedoms()]
    assert len(set(names)) == len(names)
    assert {n[:-2] for n in names if n.endswith(".L")} == {n[:-2] for n in names if n.endswith(".R")}


def test_axis_angle_and_spins_agree_on_a_single_hinge(space):
    angles = torch.zeros(len(space.freedoms))
    column = space.index["knee_flexion.L"]
    angles[column] = 1.2
    joint = int(space.swing[:, :, column].norm(dim=-1).argmax())
    torch.testing.assert_close(
        space.rotations(angles)[joint], axis_angle_to_matrix(1.2 * space.swing[joint, :, column])
    )
