import pytest
import torch
from torch import nn

from humansplat.training.ema import AveragedWeights


def test_average_follows_its_formula(rng):
    module = nn.Linear(3, 2)
    averages = AveragedWeights(module, decay=0.9)
    expected = module.weight.detach().double().clone()
    for step in range(200):
        with torch.no_grad():
            module.weight.copy_(torch.randn(2, 3, generator=rng))
        averages.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach().double()
    torch.testing.assert_close(averages.state_dict()["weight"].double(), expected, rtol=1e-5, atol=1e-5)


def test_applied_averages_leave_no_trace(rng):
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    averages = AveragedWeights(module, decay=0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with averages.applied():
        assert torch.equal(module[0].weight, averages.state_dict()["0.weight"])
        assert not torch.equal(module[0].weight, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(KeyError), averages.applied():
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_averages_are_kept_in_float32_for_half_weights():
    module = nn.Linear(2, 2).bfloat16()
    averages = AveragedWeights(module, decay=0.999)
    averages.update(0)
    assert averages.state_dict()["weight"].dtype == torch.float32
    with averages.applied():
        assert module.weight.dtype == torch.bfloat16


def test_stored_averages_come_back():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    averages = AveragedWeights(one, decay=0.9)
    restored = AveragedWeights(other, decay=0.9)
    restored.load_state_dict(averages.state_dict())
    assert torch.equal(restored.state_dict()["weight"], one.weight)
    with torch.no_grad():
        one.weight.zero_()
    averages.update(0)
    assert not torch.equal(restored.state_dict()["weight"], averages.state_dict()["weight"])  # a copy
