import math

import torch

from humansplat.body.fit_solver import minimise, robust_cost


def line_through(points):
    """Residuals of a straight line through points, for the solver: unknowns are offset and slope."""
    x, y = points.T

    def evaluate(unknowns, with_jacobian):
        residuals = unknowns[:, :1] + unknowns[:, 1:] * x - y
        jacobian = torch.stack([torch.ones_like(x), x], dim=-1).expand(len(unknowns), -1, -1)
        return residuals, jacobian if with_jacobian else None

    return evaluate


def test_outliers_do_not_move_a_robust_line():
    x = torch.linspace(-1, 1, 20)
    y = 0.5 + 2 * x
    y[3], y[15] = 20.0, -30.0
    groups = torch.arange(20)
    start = torch.tensor([[0.3, 1.5]])
    robust, _ = minimise(line_through(torch.stack([x, y], 1)), start, groups, torch.full((20,), 1.0), 20)
    torch.testing.assert_close(robust, torch.tensor([[0.5, 2.0]]), atol=1e-2, rtol=0)
    plain, _ = minimise(line_through(torch.stack([x, y], 1)), start, groups, torch.full((20,), math.inf), 20)
    assert (plain - robust).abs().max() > 0.5


def test_every_start_finds_its_own_minimum():
    def evaluate(unknowns, with_jacobian):
        return unknowns.square() - 1, 2 * unknowns[..., None] if with_jacobian else None

    ends, cost = minimise(evaluate, torch.tensor([[0.2], [-3.0]]), torch.zeros(1).long(), torch.tensor([math.inf]), 30)
    torch.testing.assert_close(ends, torch.tensor([[1.0], [-1.0]]), atol=1e-4, rtol=0)
    assert cost.max() < 1e-6


def test_the_cost_never_rises_above_its_scale():
    weights, cost = robust_cost(
        torch.tensor([[0.0, 0.0], [0.1, 0.0], [1e4, 1e4]]), torch.zeros(2).long(), torch.tensor([3.0])
    )
    assert cost[0] == 0
    torch.testing.assert_close(cost[1], torch.tensor(0.01), atol=1e-4, rtol=0)
    assert 8.9 < cost[2] <= 9.0
    assert weights[0].min() == 1
    assert weights[2].max() < 1e-6
