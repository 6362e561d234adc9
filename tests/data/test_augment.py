from dataclasses import replace

import numpy as np
import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.models import load_body_model
from humansplat.body.smpl import JOINT_NAMES
from humansplat.config import AugmentConfig
from humansplat.data.augment import augment, mirror, recolor, saturate
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate, PeopleBatch, mirrored_joints
from humansplat.geometry.projection import project
from humansplat.structures import Cameras

SIZE = 32  # of the toy people's pictures, see conftest.py


@pytest.fixture
def batch(tmp_path, template, write_person):
    for seed in range(3):
        write_person(tmp_path, f"p{seed}", seed)
    pool = PeoplePool(tmp_path, template, capacity=3)
    pool.load()
    views = torch.tensor([[4, 1, 0], [2, 3, 6], [5, 0, 2]])
    return pool.batch(torch.arange(3), views, num_inputs=4)


def project_body(batch, cameras):
    vertices = batch.body.vertices[:, None].expand(-1, cameras.viewmats.shape[1], -1, -1)
    return project(vertices, cameras.viewmats, cameras.Ks)


def test_mirrored_body_projects_onto_the_flipped_pictures(batch, template):
    symmetry = template.mirrored_vertices
    mirrored = mirror(batch, torch.tensor([True, True, True]), template)
    for cameras, flipped_cameras, order in (
        (batch.target_cameras, mirrored.target_cameras, [0, 1, 2]),
        (batch.cameras, mirrored.cameras, [0, 3, 2, 1]),
    ):
        xy, depth = project_body(batch, cameras)
        flipped_xy, flipped_depth = project_body(mirrored, flipped_cameras)
        expected = torch.stack([SIZE - xy[..., 0], xy[..., 1]], dim=-1)[:, order][:, :, symmetry]
        torch.testing.assert_close(flipped_xy, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(flipped_depth, depth[:, order][:, :, symmetry])
    assert torch.equal(mirrored.targets, batch.targets.flip(-1))
    assert torch.equal(mirrored.images[:, 1], batch.images[:, 3].flip(-1))


def test_colours_under_the_vertices_stay_with_them(batch, template):
    """The picture at a vertex's projection is the same before and after, up to the discs' overlap."""
    mirrored = mirror(batch, torch.ones(3, dtype=torch.bool), template)
    before, after = (colours_at_vertices(x) for x in (batch, mirrored))
    agree = (before - after[:, :, template.mirrored_vertices]).abs().amax(dim=-1) < 1e-6
    assert agree.float().mean() > 0.95  # a projection on a pixel's border may fall to either side


def colours_at_vertices(batch):
    xy, _ = project_body(batch, batch.target_cameras)
    column, row = xy.floor().long().clamp(0, SIZE - 1).unbind(-1)
    flat = row * SIZE + column
    pictures = batch.targets.flatten(-2)
    return pictures.gather(-1, flat[:, :, None].expand(-1, -1, 4, -1)).mT


def test_reflected_cameras_are_still_rigid(batch, template):
    rotation = mirror(batch, torch.ones(3, dtype=torch.bool), template).cameras.viewmats[..., :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3, 4))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), rtol=0, atol=1e-5)


def test_mirrored_rig_still_turns_the_same_way(batch, template):
    """View 1 is the one from +X side of a frontal photograph, mirrored or not."""
    mirrored = mirror(batch, torch.ones(3, dtype=torch.bool), template)
    for cameras in (batch.cameras, mirrored.cameras):
        assert (cameras.centers[:, 1, 0] > 2).all()


def test_mirroring_twice_changes_nothing_and_the_unchosen_stay(batch, template):
    chosen = torch.tensor([True, False, True])
    once = mirror(batch, chosen, template)
    assert torch.equal(once.targets[1], batch.targets[1])
    assert torch.equal(once.body.vertices[1], batch.body.vertices[1])
    twice = mirror(once, chosen, template)
    torch.testing.assert_close(twice.body.vertices, batch.body.vertices)
    torch.testing.assert_close(twice.cameras.Ks, batch.cameras.Ks)
    torch.testing.assert_close(twice.target_cameras.viewmats, batch.target_cameras.viewmats)
    for name, value in batch.body.parameters.items():
        torch.testing.assert_close(twice.body.parameters[name], value)
    assert not torch.equal(once.body.parameters["rotations"][0], batch.body.parameters["rotations"][0])


def test_recolouring_is_the_same_for_inputs_and_targets(batch):
    gains, channels = torch.full((3, 3), 0.5), torch.tensor([[2, 0, 1]] * 3)
    changed = recolor(batch, gains, channels)
    for old, new in ((batch.images, changed.images), (batch.targets, changed.targets)):
        torch.testing.assert_close(new[:, :, 0], 0.5 * old[:, :, 2])
        assert torch.equal(new[:, :, 3], old[:, :, 3])
    assert recolor(batch, 10 * gains, channels).targets.max() <= 1


def test_saturating_keeps_shades_and_alpha_and_leaves_grey_grey(batch):
    soft = replace(
        batch,
        images=0.4 + 0.2 * batch.images,
        targets=batch.targets.mean(dim=2, keepdim=True).expand_as(batch.targets),
    )
    changed = saturate(soft, torch.full((3,), 2.0))
    colors, shade = soft.images[:, :, :3], soft.images[:, :, :3].mean(dim=2, keepdim=True)
    torch.testing.assert_close(changed.images[:, :, :3], 2 * colors - shade)
    assert torch.equal(changed.images[:, :, 3], soft.images[:, :, 3])
    torch.testing.assert_close(changed.targets, soft.targets)


def test_augmentation_follows_its_generator(batch, template):
    config = AugmentConfig(mirror=0.5, gain=0.2, permute=0.5, saturate=1.0)
    runs = [augment(batch, config, template, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(runs[0].targets, runs[1].targets)
    still = augment(batch, AugmentConfig(mirror=0.0, gain=0.0, permute=0.0), template, torch.Generator())
    assert torch.equal(still.targets, batch.targets)


def test_joint_names_of_several_rigs_are_mirrored():
    for names in (("root", "leftArm", "rightArm"), ("hips", "a.L", "a.R"), ("pelvis", "hand_r", "hand_l")):
        assert mirrored_joints(names).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="symmetric"):
        mirrored_joints(("root", "leftArm"))


def test_body_model_given_mirrored_parameters_makes_the_mirrored_body(rng):
    body_model = AnnyBody.load()
    real = BodyTemplate.of(body_model)
    vertices = torch.arange(real.canonical.shape[0])
    assert torch.equal(real.mirrored_vertices[real.mirrored_vertices], vertices)
    posed = body_model(
        torch.rand(1, len(body_model.phenotype_names), generator=rng),
        0.2 * torch.randn(1, len(body_model.joint_names), 3, generator=rng),
        torch.randn(1, 3, generator=rng),
    )
    mirrored = mirror(only_a_body(posed), torch.tensor([True]), real).body
    again = body_model(*(mirrored.parameters[name] for name in ("phenotypes", "rotations", "translation")))
    error = (again.vertices - mirrored.vertices).norm(dim=-1)
    assert error.mean() < 5e-4  # the model's own blend shapes are symmetric to about a millimetre
    assert error.max() < 3e-3


def test_smpl_given_mirrored_parameters_makes_the_mirrored_skeleton(make_smpl_standin, tmp_path, rng):
    arrays = make_smpl_standin("smplx", num_vertices=110)
    names = JOINT_NAMES["smplx"]
    joints = arrays["J_regressor"] @ arrays["v_template"]
    joints = (joints + joints[mirrored_joints(names)] * [-1, 1, 1]) / 2
    np.savez(tmp_path / "SMPLX_FEMALE.npz", **{**arrays, "v_template": np.tile(joints, (2, 1))})
    body_model = load_body_model("smplx", folder=tmp_path, gender="female")
    real = BodyTemplate.of(body_model)
    assert (real.model, real.gender, real.body().gender) == ("smplx", "female", "female")
    scales = {name: 0.0 if name in ("betas", "expression") else 0.4 for name in body_model.parameter_shapes}
    shapes = body_model.parameter_shapes.items()  # the stand-in's shape space is not symmetric
    posed = body_model.pose({name: scales[name] * torch.randn(1, *shape, generator=rng) for name, shape in shapes})
    for chosen in (True, False):
        mirrored = mirror(only_a_body(posed), torch.tensor([chosen]), real).body
        assert torch.equal(mirrored.joints, posed.joints) != chosen
        again = body_model.pose(mirrored.parameters)
        torch.testing.assert_close(again.joints, mirrored.joints, atol=1e-5, rtol=0)


def only_a_body(body):
    """A batch of one person of whom nothing is seen."""
    cameras = Cameras(viewmats=torch.eye(4).expand(1, 4, 4, 4), Ks=torch.eye(3).expand(1, 4, 3, 3), width=4, height=4)
    pictures = torch.zeros(1, 1, 4, 4, 4)
    return PeopleBatch(
        images=pictures,
        cameras=cameras,
        targets=pictures,
        target_cameras=replace(cameras, viewmats=cameras.viewmats[:, :1], Ks=cameras.Ks[:, :1]),
        body=body,
        people=torch.zeros(1, dtype=torch.long),
    )
