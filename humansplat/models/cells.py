"""How a view is cut into the cells that become tokens, and which of them stay.

Shapes: b batch, v views, g tokens on a side, t kept tokens of a view, p pixels on a side of a token.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class TokenGrid(NamedTuple):
    """How a view is cut into tokens."""

    cell: int
    """Pixels on a side of a latent cell."""
    patch: int
    """Latent cells on a side of a token."""

    @property
    def side(self) -> int:
        """Pixels on a side of a token."""
        return self.cell * self.patch


def patchify(x: Float[Tensor, "b v h w c"], size: int) -> Float[Tensor, "b v g g2 p2 c"]:
    """Cut maps into square patches of ``size`` pixels; ``p2 = size ** 2``, row by row."""
    b, v, h, w, c = x.shape
    x = x.view(b, v, h // size, size, w // size, size, c)
    return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5)


def take_cells(x: Float[Tensor, "b v g g2 *rest"], kept: Int[Tensor, "b v t"] | None) -> Float[Tensor, "b v t *rest"]:
    """Pick the cells with the row-major indices ``kept``; all of them, in their order, without any."""
    x = x.flatten(2, 3)
    if kept is None:
        return x
    index = kept.view(*kept.shape, *[1] * (x.ndim - 3)).expand(*kept.shape, *x.shape[3:])
    return x.gather(2, index)


def cell_centers(kept: Int[Tensor, "b v t"] | None, like: Float[Tensor, "b v *rest"], grid: int) -> Tensor:
    """Centres ``(x, y)`` [b, v, t, 2] of the kept cells, in cells; ``like`` gives the batch and the device."""
    if kept is None:
        kept = torch.arange(grid * grid, device=like.device).expand(*like.shape[:2], -1)
    return torch.stack([kept % grid, kept // grid], dim=-1) + 0.5


def nearest_cells(
    alpha: Float[Tensor, "b h h"], hit: Bool[Tensor, "b v m m"] | None, num_views: int, grid: int, count: int | None
) -> Int[Tensor, "b v t"] | None:
    """Row-major indices of the cells nearest to the person, in every view.

    The photo's own view goes by its mask and the body together, the others by the body. Blurring the coverage at
    growing radii ranks the empty cells by how near they are to a covered one.

    Args:
        alpha: The photo's mask.
        hit: Where each view's rays meet the body. Without a body the other views go by the photo's mask and its
            mirror image, which is the silhouette from behind.
        num_views: ``v``.
        grid: Cells on a side of a view.
        count: Cells to keep in each view; ``None`` keeps all.

    Returns:
        The indices, or ``None`` where nothing is left out.
    """
    if count is None or count >= grid * grid:
        return None
    photo = F.adaptive_avg_pool2d(alpha[:, None], grid)
    if hit is None:
        others = torch.maximum(photo, photo.flip(-1)).expand(-1, num_views - 1, -1, -1)
    else:
        coverage = F.adaptive_avg_pool2d(hit.float(), grid)
        photo, others = torch.maximum(coverage[:, :1], photo), coverage[:, 1:]
    coverage = torch.cat([photo, others], dim=1)
    score = coverage
    for step, radius in enumerate((1, 2, 4, 8, 16), start=1):
        blurred = F.avg_pool2d(coverage, 2 * radius + 1, stride=1, padding=radius)
        score = score.add(blurred, alpha=0.1**step)
    return score.flatten(2).topk(count, dim=-1).indices


def fill_outwards(values: Float[Tensor, "n h w"], known: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Continue a map into its unknown pixels: known values average down a pyramid, and fill in going up.

    Args:
        values: Any values where ``known`` is 0.
        known: 1 where ``values`` counts, 0 elsewhere. The sides must be powers of two.

    Returns:
        ``values`` where known, else a mean of the nearest known ones (0 in a map that knows none).
    """
    levels = [torch.stack([values * known, known], dim=1)]  # [n, 2, h, w]
    while levels[-1].shape[-1] > 1:
        sums = F.avg_pool2d(levels[-1], 2)
        levels.append(sums / sums[:, 1:].clamp(min=1e-6))  # means of known values, and 1 where there are any
    filled = levels.pop()[:, 0]
    for level in reversed(levels):
        count, _, height, width = level.shape
        fine = level.view(count, 2, height // 2, 2, width // 2, 2)
        filled = torch.lerp(filled[:, :, None, :, None], fine[:, 0], fine[:, 1]).view(count, height, width)
    return filled
