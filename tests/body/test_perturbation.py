import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.body.noise import BodyNoise
from humansplat.body.perturbation import Perturbation, counterpart
from humansplat.body.smpl import JOINT_NAMES
from humansplat.config import NoiseLevels
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix

NUM = 200
CENTERS = torch.tensor([1.0, 1.2, 4.0]).expand(NUM, 3)


@pytest.fixture(scope="module", params=["smpl", "smplh", "smplx"])
def smpl(request, smpl_folder):
    return load_body_model(request.param, folder=smpl_folder)


def posed(body, rng, num=NUM):
    scales = {"betas": 0.8, "transl": 0.3}
    shapes = body.parameter_shapes.items()
    return body.pose({name: scales.get(name, 0.2) * torch.randn(num, *shape, generator=rng) for name, shape in shapes})


def perturbed(body, true, amount, levels=None, seed=0):
    perturb = Perturbation(levels or NoiseLevels(), body)
    return perturb(true, CENTERS, torch.full((NUM,), amount), torch.Generator().manual_seed(seed))


def test_the_default_bodys_noise_is_that_of_its_parameters(body, rng):
    true = body(
        **{name: value + 0.1 * torch.rand(value.shape, generator=rng) for name, value in body.neutral(2).items()}
    )
    amount = torch.tensor([1.0, 0.5])
    centers = CENTERS[:2]
    wrong = Perturbation(NoiseLevels(), body)(true, centers, amount, torch.Generator().manual_seed(5))
    viewing = torch.nn.functional.normalize(true.joints[:, 0] - centers, dim=-1)
    noise = BodyNoise(NoiseLevels(), body.joint_names, body.skeleton)
    expected = noise(**true.parameters, viewing=viewing, amount=amount, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(wrong.vertices, body(**expected).vertices)


def test_no_amount_leaves_smpl_bodies_as_they_are(smpl, rng):
    true = posed(smpl, rng)
    same = perturbed(smpl, true, amount=0.0)
    torch.testing.assert_close(same.vertices, true.vertices, atol=2e-5, rtol=0)
    assert (same.model, same.gender) == (smpl.name, "neutral")
    assert same.parameters.keys() == true.parameters.keys()


def test_smpl_bodies_get_wrong_as_the_levels_say(smpl, rng):
    levels = NoiseLevels()
    true = posed(smpl, rng)
    wrong = perturbed(smpl, true, amount=1.0, levels=levels)
    root = (wrong.joints - true.joints)[:, 0]
    away = torch.nn.functional.normalize(true.joints[:, 0] - CENTERS, dim=-1)
    along = (root * away).sum(dim=-1)
    across = root - along[:, None] * away
    assert along.std().item() == pytest.approx(levels.depth, rel=0.2)
    assert across.norm(dim=-1).square().mean().sqrt().item() == pytest.approx(levels.across * 2**0.5, rel=0.2)
    lean = turns(smpl, wrong, true, "left_elbow")
    assert lean == pytest.approx((2 * levels.limb_depth**2 + levels.limb_picture**2) ** 0.5, rel=0.15)
    change = (wrong.parameters["betas"] - true.parameters["betas"]).std().item()
    assert change == pytest.approx(8 * levels.phenotypes, rel=0.1)
    assert torch.equal(perturbed(smpl, true, amount=1.0, levels=levels).vertices, wrong.vertices)


def turns(body, wrong, true, joint):
    """Root mean square of the angle by which a joint is turned wrongly in the world, degrees."""
    place = body.joint_names.index(joint)
    matrices = []
    for pose in (wrong, true):
        from humansplat.body.smpl import ROTATIONS

        vectors = torch.cat([pose.parameters[name] for name in ROTATIONS[body.name]], dim=-1).unflatten(-1, (-1, 3))
        world, _ = body.skeleton(torch.zeros_like(vectors), axis_angle_to_matrix(vectors), torch.zeros(NUM, 3))
        matrices.append(world[:, place])
    trace = (matrices[0] * matrices[1]).sum(dim=(-1, -2))
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()).square().mean().sqrt().item()


def test_every_joint_of_the_family_has_its_counterpart():
    for names in JOINT_NAMES.values():
        found = [counterpart(name) for name in names]
        assert found[0] == "root"
        assert {"spine01", "head"} <= set(found)
        assert sum(name.startswith("finger") for name in found) in (0, 30)
        assert found.count("upperarm01") == found.count("wrist") == found.count("foot") == 2


def test_bodies_without_parameters_are_refused(smpl, rng):
    true = posed(smpl, rng, num=2)
    bare = type(true)(**{**vars(true), "parameters": None})
    with pytest.raises(UserError, match="no parameters to perturb"):
        Perturbation(NoiseLevels(), smpl)(bare, CENTERS[:2], torch.ones(2), rng)
