import pytest
import torch
from torch import nn

from humansplat.errors import UserError
from humansplat.misfits import check_tensors


def test_misfits_are_listed():
    state = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    check_tensors(state, shapes, "it", "the model")
    del state["1.bias"]
    state |= {"9.weight": torch.zeros(1), "0.weight": torch.zeros(3, 4)}
    listed = r"1 missing: 1.bias; 1 unexpected: 9.weight; 1 of another shape: 0.weight \(3, 4\) instead of \(3, 2\)"
    with pytest.raises(UserError, match=rf"^it does not fit the model: {listed}; get it anew$"):
        check_tensors(state, shapes, "it", "the model", "get it anew")
    with pytest.raises(UserError, match=r"10 unexpected: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more$"):
        check_tensors({str(place): torch.zeros(1) for place in range(10)}, {}, "it", "the model")
