"""Which body tokens an image cell may see: HumanSplat's projection-aware window (section 3.4)."""

from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.structures import Cameras


def project_to_cells(
    points: Float[Tensor, "b j 3"], cameras: Cameras, cell: int
) -> tuple[Float[Tensor, "b v j 2"], Bool[Tensor, "b v j"]]:
    """Project body tokens into every view's grid of cells.

    Args:
        points: World frame, metres.
        cameras: ``[b, v]``.
        cell: Side of a cell, pixels.

    Returns:
        Continuous cell coordinates ``(x, y)``, cell ``i`` covering ``[i, i + 1)``, and whether the
        point lies in front of the camera and inside the image.
    """
    views = cameras.viewmats.shape[1]
    xy, depth = project(points[:, None].expand(-1, views, -1, -1), cameras.viewmats, cameras.Ks)
    x, y = xy.unbind(dim=-1)
    inside = (x >= 0) & (x < cameras.width) & (y >= 0) & (y < cameras.height) & (depth > 1e-3)
    return xy / cell, inside


def window_mask(
    cells: Float[Tensor, "b v t 2"],
    tokens: Float[Tensor, "b v j 2"],
    inside: Bool[Tensor, "b v j"],
    window: float,
) -> Bool[Tensor, "b v t j"]:
    """Pairs of cells and tokens that may attend.

    One rule for even and odd ``K``: a token is seen by a cell when it projects into the square of
    side ``K`` cells centred on the cell's centre, ``max(|x - cx|, |y - cy|) <= K / 2``. ``K = 1``
    is the cell itself.

    Args:
        cells: Centres of the cells, in cell units (the first cell's is ``(0.5, 0.5)``).
        tokens: Projections of the body tokens, in cell units.
        inside: Tokens in front of the camera and in the image; others are never seen.
        window: ``K``, side of the window in cells; ``inf`` lets every inside token be seen.
    """
    half = window / 2
    seen = (cells[:, :, :, None, 0] - tokens[:, :, None, :, 0]).abs() <= half
    seen &= (cells[:, :, :, None, 1] - tokens[:, :, None, :, 1]).abs() <= half
    return seen & inside[:, :, None]
