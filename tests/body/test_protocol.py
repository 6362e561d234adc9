import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.body.protocol import BodyModel
from humansplat.errors import UserError


def test_the_default_body_keeps_the_protocol(body):
    assert isinstance(body, BodyModel)
    assert all(hasattr(body, member) for member in vars(BodyModel) if not member.startswith("_"))
    neutral = body.neutral(2)
    assert {name: tuple(tensor.shape[1:]) for name, tensor in neutral.items()} == body.parameter_shapes
    assert len(body.joint_names) == len(body.joint_parents) == body.weights.shape[1]
    posed = body.pose(neutral)
    assert posed.model == body.name == "anny"
    assert posed.parameters.keys() == body.parameter_shapes.keys()
    assert isinstance(body.subset(torch.tensor([3, 4])), BodyModel)


def test_an_unknown_body_is_refused():
    with pytest.raises(UserError, match="'mannequin'"):
        load_body_model("mannequin")
