import torch
from accelerate import Accelerator
from torch import nn

from humansplat.config import OptimConfig
from humansplat.training.meter import LossMeter
from humansplat.training.optimizer import (
    LossScale,
    clipped_step,
    make_optimizer,
    moments,
    restore_moments,
    set_learning_rate,
)


def make_module() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))
    module[3].bias.requires_grad_(False)
    return module


def backward(module: nn.Module, scale: float = 1.0) -> None:
    (scale * module(torch.arange(96.0).reshape(2, 3, 4, 4) / 96).square().sum()).backward()


def test_only_matrices_and_kernels_are_decayed():
    module = make_module()
    decayed, others = make_optimizer(module, OptimConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert [p is q for p, q in zip(decayed["params"], (module[0].weight, module[3].weight), strict=True)] == [True] * 2
    assert len(others["params"]) == 3  # the frozen bias is in neither


def test_step_is_that_of_plain_adamw():
    module, reference = make_module(), make_module()
    optimizer = make_optimizer(module, OptimConfig(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9)))
    plain = torch.optim.AdamW(
        [
            {"params": [p for p in reference.parameters() if p.ndim > 1 and p.requires_grad], "weight_decay": 0.1},
            {"params": [p for p in reference.parameters() if p.ndim == 1 and p.requires_grad], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.8, 0.9),
    )
    for step in range(5):
        rate = 0.01 / (step + 1)
        set_learning_rate(optimizer, rate)
        set_learning_rate(plain, rate)
        backward(module)
        norm, bad = clipped_step(optimizer, max_norm=0.5)
        assert not bad
        plain.zero_grad()
        backward(reference)
        expected = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        plain.step()
        torch.testing.assert_close(norm, expected, rtol=1e-5, atol=0)  # float32 sums in another order
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_step_without_finite_gradient_changes_nothing():
    module = make_module()
    optimizer = make_optimizer(module, OptimConfig())
    backward(module)
    clipped_step(optimizer, 1.0)
    before = {name: value.clone() for name, value in (module.state_dict() | moments(module, optimizer)).items()}
    for scale in (float("nan"), float("inf")):
        backward(module, scale)
        _, bad = clipped_step(optimizer, 1.0)
        assert bad
    after = module.state_dict() | moments(module, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    backward(module)
    _, bad = clipped_step(optimizer, 1.0)
    assert not bad
    assert not torch.equal(module[0].weight, before["0.weight"])


def test_restored_moments_go_on_alike():
    module, other = make_module(), make_module()
    optimizer, resumed = make_optimizer(module, OptimConfig()), make_optimizer(other, OptimConfig())
    for _ in range(3):
        backward(module)
        clipped_step(optimizer, 1.0)
    other.load_state_dict(module.state_dict())
    restore_moments(other, resumed, moments(module, optimizer))
    for each, its in ((module, optimizer), (other, resumed)):
        backward(each)
        clipped_step(its, 1.0)
    assert all(torch.equal(one, two) for one, two in zip(module.parameters(), other.parameters(), strict=True))


def test_loss_scale_falls_with_overflows_and_grows_with_patience():
    scale = LossScale(torch.device("cpu"), start=4.0, patience=3)
    yes, no = torch.tensor(True), torch.tensor(False)
    seen = [(bool(scale.update(overflow)), float(scale.value)) for overflow in (yes, no, no, yes, no, no, no, no, yes)]
    assert [value for _, value in seen] == [2, 2, 2, 1, 1, 1, 2, 2, 1]
    assert not any(hopeless for hopeless, _ in seen)
    other = LossScale(torch.device("cpu"))
    other.load_state_dict(scale.state_dict())
    assert bool(other.update(yes))  # no smaller scale could help
    assert other.value == 1


def test_scaled_gradients_make_the_step_of_plain_ones():
    module, scaled = make_module(), make_module()
    norms = []
    for each, scale in ((module, None), (scaled, torch.tensor(1024.0))):
        optimizer = make_optimizer(each, OptimConfig(lr=0.01))
        for _ in range(3):
            backward(each, 1.0 if scale is None else float(scale))
            norm, _ = clipped_step(optimizer, 0.5, scale)
            norms.append(norm)
    torch.testing.assert_close(norms[:3], norms[3:])
    for one, other in zip(module.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_meter_averages_good_steps_and_counts_bad_ones_in_a_row():
    meter = LossMeter(Accelerator(cpu=True))
    for value, bad in ((1.0, False), (float("nan"), True), (float("inf"), True), (3.0, False), (9.0, True)):
        meter.add(
            {"loss": torch.tensor(value), "_extra": torch.tensor(2 * value)}, torch.tensor(bad), torch.tensor(bad)
        )
    values = meter.read()
    assert values == {"loss": 2.0, "extra": 4.0, "bad_steps": 3.0}
    assert meter.bad_in_a_row == 2
    meter.add({"loss": torch.tensor(5.0)}, torch.tensor(True), torch.tensor(True))
    meter.add({"other": torch.tensor(6.0)}, torch.tensor(True), torch.tensor(True))
    values = meter.read()
    assert values["bad_steps"] == 5
    assert meter.bad_in_a_row == 3  # counted on across the reading
