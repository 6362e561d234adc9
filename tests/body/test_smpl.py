"""The SMPL family against the smplx package, on stand-ins: real files may not be handed out."""

import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.body.protocol import BodyModel

NAMES = ("smpl", "smplh", "smplx")


def random_parameters(body, rng, *batch):
    scales = {"betas": 2.0, "expression": 2.0, "transl": 1.0}
    return {
        name: scales.get(name, 0.4) * torch.randn(*batch, *shape, generator=rng)
        for name, shape in body.parameter_shapes.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_smpl_family_keeps_the_protocol(name, smpl_folder):
    body = load_body_model(name, folder=smpl_folder, gender="female")
    assert isinstance(body, BodyModel)
    neutral = body.neutral(2)
    assert {key: tuple(value.shape[1:]) for key, value in neutral.items()} == body.parameter_shapes
    assert len(body.joint_names) == len(body.joint_parents) == body.weights.shape[1]
    posed = body.pose(neutral)
    assert (posed.model, posed.gender) == (name, "female")
    assert posed.parameters.keys() == body.parameter_shapes.keys()
    torch.testing.assert_close(posed.vertices[1], body.canonical, atol=1e-5, rtol=0)
    assert body.canonical[:, 1].min().abs() < 1e-6
    assert posed.joints[0, 0, [0, 2]].abs().max() < 1e-6
