import pytest
import torch
from scipy.spatial import cKDTree

from humansplat.body.anny import AnnyBody
from humansplat.body.follow import follow_surface, joints_with_skin


@pytest.fixture(scope="module")
def model():
    return AnnyBody.load()


def test_the_default_body_follows_a_surface_and_names_its_points(model, rng):
    limbs = ("spine03", "neck01", "upperarm01", "lowerarm01", "upperleg01", "lowerleg01", "wrist")
    turned = [index for index, name in enumerate(model.joint_names) if name.split(".")[0] in limbs]
    rotations = torch.zeros(163, 3)
    rotations[turned] = 0.2 * torch.randn(len(turned), 3, generator=rng)
    phenotypes = model.neutral()["phenotypes"].clone()
    phenotypes[model.phenotype_names.index("weight")] += 0.2
    other = model.pose({"rotations": rotations, "phenotypes": phenotypes})
    shuffled = torch.randperm(len(other.vertices), generator=rng)
    mesh = other.vertices[shuffled] + torch.tensor([0.05, 0.0, 0.1])

    def wrong(body):
        _, nearest = cKDTree(body.vertices.numpy()).query(mesh.numpy())
        return (body.parts[torch.from_numpy(nearest)] != other.parts[shuffled]).float().mean()

    start = model.pose({})
    followed = follow_surface(model, start.parameters, mesh, steps=50)
    assert wrong(start) > 0.2
    assert wrong(followed) < 0.05
    assert (followed.vertices[shuffled] - mesh).norm(dim=-1).mean() < 0.02
    assert (followed.parameters["phenotypes"] >= 0).all()


def test_joints_go_with_the_skin(model, rng):
    rotations = torch.zeros(163, 3)
    limbs = [index for index, name in enumerate(model.joint_names) if name.startswith(("upper", "lower", "spine"))]
    rotations[limbs] = 0.2 * torch.randn(len(limbs), 3, generator=rng)
    rotations[0] = torch.tensor([0.3, 1.5, 0.1])
    there = model.pose({"rotations": rotations, "translation": torch.tensor([1.0, 2.0, 3.0])})
    joints = joints_with_skin(model, model.pose({}), there.vertices)
    off = (joints - there.joints).norm(dim=-1)
    assert off.mean() < 0.02
    for name in ("upperleg01.L", "upperarm01.R", "lowerarm01.L", "head"):
        assert off[model.joint_names.index(name)] < 0.03, name
