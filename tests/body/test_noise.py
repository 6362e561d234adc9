import math

import pytest
import torch
import torch.nn.functional as F

from humansplat.body.noise import LIMBS, BodyNoise, joint_levels, sight_axes
from humansplat.config import NoiseLevels
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import PosedBody

NUM = 300
NOTHING = dict.fromkeys(vars(NoiseLevels()), 0.0)


@pytest.fixture(scope="module")
def posed(body) -> dict[str, torch.Tensor]:
    """The same body in the same, not trivial, pose many times."""
    generator = torch.Generator().manual_seed(3)
    parameters = body.neutral(NUM)
    pose = 0.3 * torch.randn(len(body.joint_names), 3, generator=generator)
    pose[0] = torch.tensor([0.1, 0.8, -0.1])
    parameters["rotations"] = parameters["rotations"] + pose
    return parameters


@pytest.fixture(scope="module")
def viewing() -> torch.Tensor:
    """From a camera beside the body and above it."""
    return F.normalize(torch.tensor([0.6, -0.3, -0.7]), dim=0).expand(NUM, 3)


def drawn(body, parameters, viewing, levels=None, amount=1.0, seed=0) -> dict[str, torch.Tensor]:
    noise = BodyNoise(levels or NoiseLevels(), body.joint_names, body.skeleton)
    amounts = torch.full((len(viewing),), amount) if isinstance(amount, float) else amount
    return noise(**parameters, viewing=viewing, amount=amounts, generator=torch.Generator().manual_seed(seed))


def world_rotations(body, parameters) -> torch.Tensor:
    turns = axis_angle_to_matrix(parameters["rotations"])
    return body.skeleton(torch.zeros_like(parameters["rotations"]), turns, parameters["translation"])[0]


def test_no_amount_changes_nothing(body, posed, viewing):
    amount = torch.ones(NUM)
    amount[::2] = 0.0
    wrong = drawn(body, posed, viewing, amount=amount)
    for name, value in posed.items():
        assert torch.equal(wrong[name][::2], value[::2])
        assert not torch.equal(wrong[name][1::2], value[1::2])


def test_same_generator_same_noise(body, posed, viewing):
    first, again, other = (drawn(body, posed, viewing, seed=seed) for seed in (1, 1, 2))
    for name in posed:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def world_errors(body, wrong, true, viewing) -> torch.Tensor:
    """Of each joint, degrees, along the axes of the line of sight: right, up, away."""
    errors = world_rotations(body, wrong) @ world_rotations(body, true).mT
    return torch.rad2deg(matrix_to_axis_angle(errors) @ sight_axes(viewing[0]).mT)


def test_bones_turn_as_the_levels_say(body, posed, viewing):
    """In the axes of the line of sight, whatever the pose and the parents' errors."""
    levels = NoiseLevels()
    errors = world_errors(body, drawn(body, posed, viewing, levels), posed, viewing)
    independent = {"root", "spine01", "head"} | {
        f"{stem}.{side}" for stem in (*LIMBS, "wrist", "foot") for side in "LR"
    }
    chosen = []
    for joint, name in enumerate(body.joint_names):
        if name in independent:
            chosen.append(joint)
            assert errors[:, joint].std(dim=0).tolist() == pytest.approx(joint_levels(name, levels), rel=0.2), name
            assert (errors[:, joint].mean(dim=0).abs() < 0.2 * errors[:, joint].std(dim=0)).all(), name
    assert len(chosen) == len(independent)
    correlation = torch.corrcoef(errors[:, chosen].flatten(1).T) - torch.eye(3 * len(chosen))
    assert correlation.abs().max() < 0.25


def test_other_joints_go_with_their_parents(body, posed, viewing):
    wrong = drawn(body, posed, viewing)
    for name in ("pelvis.L", "upperleg02.R", "clavicle.L", "toe2-1.L", "metacarpal2.R", "jaw", "eye.L"):
        joint = body.joint_names.index(name)
        assert torch.equal(wrong["rotations"][:, joint], posed["rotations"][:, joint]), name


def test_the_spine_bends_evenly_from_hips_to_chest(body, posed, viewing):
    levels = NoiseLevels(**NOTHING | {"root_lean": 4.0, "chest_depth": 8.0})
    errors = world_errors(body, drawn(body, posed, viewing, levels), posed, viewing)
    names = ("root", "spine05", "spine04", "spine03", "spine02", "spine01")
    lean = errors[:, [body.joint_names.index(name) for name in names], 0]
    steps = lean.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-2, rtol=0)
    assert steps.abs().max() > 1.0


def test_fingers_add_to_their_hand(body, posed, viewing):
    levels = NoiseLevels(**NOTHING | {"fingers": 5.0})
    errors = world_errors(body, drawn(body, posed, viewing, levels), posed, viewing)
    for phalanx in (1, 2, 3):
        spread = errors[:, body.joint_names.index(f"finger2-{phalanx}.L")].std(dim=0)
        assert spread.tolist() == pytest.approx([5.0 * math.sqrt(phalanx)] * 3, rel=0.2)


def test_limbs_move_along_the_line_of_sight(body):
    """Bones that lie across it: their ends go several times as far in depth as in the picture."""
    parameters = body.neutral(NUM)
    viewing = torch.tensor([0.0, 0.0, -1.0]).expand(NUM, 3)
    levels = NoiseLevels(**NOTHING | {"limb_depth": 9.0, "limb_picture": 2.0})
    wrong = drawn(body, parameters, viewing, levels)
    moved = body.joints_only(**wrong) - body.joints_only(**parameters)
    for name in ("lowerarm01.L", "lowerarm01.R", "foot.L", "foot.R"):
        x, y, z = moved[:, body.joint_names.index(name)].std(dim=0)
        assert 0.025 < z < 0.15
        assert z > 2.5 * max(x, y), name


def test_root_moves_along_its_ray(body, posed, viewing):
    levels = NoiseLevels()
    step = drawn(body, posed, viewing, levels)["translation"] - posed["translation"]
    right, up, away = (step @ sight_axes(viewing[0]).mT).std(dim=0).tolist()
    assert (right, up) == pytest.approx((levels.across, levels.across), rel=0.2)
    assert away == pytest.approx(levels.depth, rel=0.2)


def test_phenotypes_stay_in_their_range(body, posed, viewing):
    posed = {**posed, "phenotypes": posed["phenotypes"].clone()}
    posed["phenotypes"][:, 0] = 1.0
    wrong = drawn(body, posed, viewing)["phenotypes"]
    assert wrong.min() >= 0.0
    assert wrong.max() <= 1.0
    assert wrong[:, 2].std() == pytest.approx(NoiseLevels().phenotypes, rel=0.2)


def test_twice_the_amount_is_twice_the_noise(body, posed, viewing):
    steps = [drawn(body, posed, viewing, amount=amount)["translation"] - posed["translation"] for amount in (1.0, 2.0)]
    torch.testing.assert_close(steps[1], 2 * steps[0], atol=1e-6, rtol=1e-4)


def test_wrong_parameters_pose_the_body(body, posed, viewing):
    few = {name: value[:2] for name, value in posed.items()}
    wrong = body(**drawn(body, few, viewing[:2]))
    assert isinstance(wrong, PosedBody)
    assert wrong.vertices.isfinite().all()
    rotations = world_rotations(body, drawn(body, few, viewing[:2]))
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-4, rtol=0)
    assert torch.linalg.det(rotations).min() > 0.99


def test_sight_axes_are_the_pictures():
    axes = sight_axes(torch.tensor([[0.0, 0.0, -1.0], [0.6, -0.48, 0.64]]))
    torch.testing.assert_close(axes[0], torch.diag(torch.tensor([1.0, 1.0, -1.0])))
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    assert axes[1, 0, 1] == 0.0  # level
    assert axes[1, 1, 1] > 0.0


def test_levels_are_checked():
    with pytest.raises(UserError, match=r"noise.limb_depth \(-1.0\) must be at least 0"):
        NoiseLevels(limb_depth=-1.0)
