"""Points spread evenly over a set."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def farthest_points(points: Float[Tensor, "v 3"], count: int, *, first: int | None = None) -> Int[Tensor, " k"]:
    """Indices of ``count`` points, each the farthest from those before it (Gonzalez, 1985).

    Distances are worked out on the CPU in double precision, so the choice is the same on every device.

    Args:
        points: In any unit.
        count: How many; all indices are returned, in their order, when there are no more points.
        first: Where to begin; by default at the point farthest from the centroid.
    """
    if count >= len(points):
        return torch.arange(len(points))
    positions = points.detach().cpu().double()
    if first is None:
        first = int((positions - positions.mean(0)).square().sum(-1).argmax())
    chosen = [first]
    distance = (positions - positions[first]).square().sum(-1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (positions - positions[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen)
