"""Points spread evenly over a set."""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
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
    return torch.from_numpy(_choose(positions.numpy(), first, count))


@njit(cache=True, nogil=True)
@no_type_check
def _choose(positions, first, count):
    """One pass over the points a choice: their distances are brought up to date, and the first largest is found."""
    chosen = np.empty(count, np.int64)
    chosen[0] = first
    distances = np.full(len(positions), np.inf)
    for number in range(1, count):
        last = positions[chosen[number - 1]]
        farthest, largest = 0, -1.0
        for point in range(len(positions)):
            x, y, z = positions[point, 0] - last[0], positions[point, 1] - last[1], positions[point, 2] - last[2]
            distances[point] = min(distances[point], x * x + y * y + z * z)
            if distances[point] > largest:
                farthest, largest = point, distances[point]
        chosen[number] = farthest
    return chosen
