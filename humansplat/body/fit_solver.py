"""Batched Levenberg-Marquardt with robust residuals: a few dozen unknowns, several starts side by side."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Evaluate = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
"""``evaluate(unknowns [h, d], with_jacobian) -> residuals [h, r], jacobian [h, r, d] or None``; whitened residuals."""


def robust_cost(
    residuals: Float[Tensor, "h r"], groups: Int[Tensor, " r"], scales: Float[Tensor, " g"]
) -> tuple[Float[Tensor, "h r"], Float[Tensor, " h"]]:
    """Geman-McClure cost of groups of residuals (the x and y of a point are one group).

    ``rho(s) = c^2 s / (c^2 + s)`` of a group's squared length ``s``: grows like ``s`` near zero and never beyond
    ``c^2`` (Geman and McClure, 1987). An infinite ``c`` gives plain least squares.

    Returns:
        Weights for iteratively reweighted least squares, ``rho'(s)``, and the cost of every start.
    """
    squared = residuals.new_zeros(residuals.shape[0], len(scales)).index_add_(1, groups, residuals.square())
    finite = scales.isfinite()
    limit = torch.where(finite, scales, torch.ones_like(scales)).square()
    share = torch.where(finite, limit / (limit + squared), torch.ones_like(squared))
    return share.square()[:, groups], (share * squared).sum(dim=-1)


def minimise(
    evaluate: Evaluate,
    unknowns: Float[Tensor, "h d"],
    groups: Int[Tensor, " r"],
    scales: Float[Tensor, " g"],
    iterations: int,
    damping: float = 1e-2,
) -> tuple[Float[Tensor, "h d"], Float[Tensor, " h"]]:
    """Minimise the robust cost from several starts at once.

    Args:
        evaluate: The model.
        unknowns: The starts.
        groups: Robust group of every residual.
        scales: Geman-McClure scale of every group, in standard deviations.
        iterations: Steps, one Jacobian each.
        damping: First damping, relative to the diagonal of the normal matrix.

    Returns:
        The best unknowns found from each start, and their cost.
    """
    best = unknowns
    cost = robust_cost(evaluate(best, False)[0], groups, scales)[1]
    lam = torch.full_like(cost, damping)
    for _ in range(iterations):
        value, J = evaluate(best, True)
        assert J is not None
        weights, _ = robust_cost(value, groups, scales)
        weighted = J * weights[..., None]
        normal = weighted.mT @ J
        damped = normal + torch.diag_embed(lam[:, None] * normal.diagonal(dim1=-2, dim2=-1) + 1e-6)
        step = torch.linalg.solve(damped, (weighted.mT @ value[..., None])[..., 0])
        trial_cost = robust_cost(evaluate(best - step, False)[0], groups, scales)[1]
        better = trial_cost < cost
        best, cost = torch.where(better[:, None], best - step, best), torch.where(better, trial_cost, cost)
        lam = torch.where(better, lam / 3, lam * 5).clamp(1e-5, 1e4)
    return best, cost
