"""From Anny's phenotypes (age, gender, weight ...) to coefficients of its shape space, differentiably.

Anny follows MakeHuman: shapes were modelled at a few anchors of each phenotype, and each modelled
shape holds for a combination of anchors, e.g. an old, heavy woman of average muscle. A person
between the anchors is the multilinear blend (Bregier et al., "Human Mesh Modeling for Anny Body", 2025).
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

RACES = ("african", "asian", "caucasian")

ANCHORS = {
    "gender": (0.0, 1.0, 2),
    "age": (-1 / 3, 1.0, 5),
    "muscle": (0.0, 1.0, 3),
    "weight": (0.0, 1.0, 3),
    "height": (0.0, 1.0, 2),
    "proportions": (0.0, 1.0, 2),
    "cupsize": (0.0, 1.0, 3),
    "firmness": (0.0, 1.0, 3),
}
"""First and last anchor and their number. Gender: male, female. Age: newborn, baby, child, young adult, old."""

PHENOTYPE_NAMES = (*ANCHORS, *RACES)


def hat_weights(value: Float[Tensor, "*batch"], first: float, last: float, num: int) -> Float[Tensor, "*batch num"]:
    """Weights of equally spaced anchors in linear interpolation; beyond the ends they stay.

    On an anchor the gradient is the one of the interval below (above, at the first), never zero.
    """
    position = ((value - first) * ((num - 1) / (last - first))).clamp(0, num - 1)
    below = (position.detach().ceil() - 1).clamp(0, num - 2).long()
    fraction = (position - below).unsqueeze(-1)
    upper = torch.nn.functional.one_hot(below + 1, num).to(value.dtype)
    lower = torch.nn.functional.one_hot(below, num).to(value.dtype)
    return lower * (1 - fraction) + upper * fraction


def phenotype_factors(phenotypes: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch f"]:
    """Weights of all anchors side by side, the three races first, a constant 1 at the end.

    The races are shares: they are divided by their sum, and equal thirds when all are zero.
    """
    races = phenotypes[..., len(ANCHORS) :]
    total = races.sum(dim=-1, keepdim=True)
    shares = torch.where(total > 0, races / torch.where(total > 0, total, 1), 1 / len(RACES))
    return torch.cat([shares, _all_hat_weights(phenotypes[..., : len(ANCHORS)]), torch.ones_like(total)], dim=-1)


def _all_hat_weights(values: Float[Tensor, "*batch a"]) -> Float[Tensor, "*batch f"]:
    """:func:`hat_weights` of all anchored phenotypes side by side, in the operations of one."""
    first, scale, last, row, place = _anchor_table(values.dtype, values.device)
    position = ((values - first) * scale).clamp(min=0).clamp(max=last)  # not torch.minimum: it halves ties' gradients
    below = (position.detach().ceil() - 1).clamp(min=0)
    fraction = (position - below)[..., row]
    step = place - below[..., row]
    return torch.where(step == 1, fraction, torch.where(step == 0, 1 - fraction, 0))


@lru_cache(maxsize=8)
def _anchor_table(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of each phenotype the first anchor, anchors per unit and the last one's number; of each weight its two numbers.

    Kept, for bringing small constants to a GPU waits for all work queued there.
    """
    counts = [num for _, _, num in ANCHORS.values()]
    with torch.inference_mode(False), torch.device("cpu"):
        first = torch.tensor([first for first, _, _ in ANCHORS.values()], dtype=dtype)
        scale = torch.tensor([(num - 1) / (last - first) for first, last, num in ANCHORS.values()], dtype=dtype)
        last = torch.tensor(counts, dtype=dtype) - 1
        row = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        place = torch.cat([torch.arange(num, dtype=dtype) for num in counts])
        return first.to(device), scale.to(device), last.to(device), row.to(device), place.to(device)


def shape_coefficients(
    phenotypes: Float[Tensor, "*batch p"], products: Int[Tensor, "k n"], projection: Float[Tensor, "k d"]
) -> Float[Tensor, "*batch d"]:
    """Coefficients of the shape space.

    Args:
        phenotypes: In the order of ``PHENOTYPE_NAMES``, in ``[0, 1]``; age down to -1/3 (newborn).
        products: The factors of each modelled shape, indices into ``phenotype_factors``.
        projection: From weights of modelled shapes to coefficients of the shape space.
    """
    factors = phenotype_factors(phenotypes)[..., products.mT]  # [*b, n, k]
    weights = factors[..., 0, :]
    for index in range(1, factors.shape[-2]):
        weights = weights * factors[..., index, :]
    return weights @ projection
