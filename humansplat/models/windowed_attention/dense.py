"""Windowed attention by scaled dot-product attention with a mask: the oracle, at a cost of all pairs."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    query: Float[Tensor, "b v t h d"],
    key: Float[Tensor, "b j h d"],
    value: Float[Tensor, "b j h d"],
    mask: Bool[Tensor, "b v t j"],
) -> Float[Tensor, "b v t h d"]:
    """Attend where the mask is true; a query whose row has no true entry gets zero."""
    allowed = mask.flatten(1, 2)[:, None]  # [b, 1, v t, j]
    lonely = ~allowed.any(dim=-1, keepdim=True)
    rows = query.flatten(1, 2).transpose(1, 2)  # [b, h, v t, d]
    if key.shape[1] == 0:
        return query * (key.sum() + value.sum())  # zero, and tied to all three for their gradients
    attended = F.scaled_dot_product_attention(
        rows,
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=allowed | lonely,  # a row without a key would be 0 / 0
    )
    attended = attended.masked_fill(lonely, 0.0)
    return attended.transpose(1, 2).unflatten(1, query.shape[1:3])
