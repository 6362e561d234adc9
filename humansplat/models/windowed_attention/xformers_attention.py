"""Windowed attention by xformers: one block of a block-diagonal mask for each query, as long as its window's tokens.

An alternative where xformers is installed; it is not required. The keys and values of each pair are copied, so its
memory grows with pairs times channels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.errors import UserError


def missing() -> str | None:
    """Why xformers cannot be used, as part of a sentence; nothing when it can."""
    try:
        import xformers.ops  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch or CUDA fails in its own ways
        return f"xformers does not load ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None if torch.cuda.is_available() else "xformers needs a CUDA device and torch sees none"


def require() -> None:
    """Refuse where xformers cannot be used.

    Raises:
        UserError: With the reason and what to use in its place.
    """
    reason = missing()
    if reason is not None:
        raise UserError(f"backend='xformers' cannot be used: {reason}; use backend='auto', or install xformers")


def attend(
    query: Float[Tensor, "b v t h d"],
    key: Float[Tensor, "b j h d"],
    value: Float[Tensor, "b j h d"],
    mask: Bool[Tensor, "b v t j"],
) -> Float[Tensor, "b v t h d"]:
    """Attend where the mask is true; a query whose row has no true entry gets zero."""
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    entry, _, _, token = mask.nonzero(as_tuple=True)  # waits for the device
    if not len(token):
        return 0.0 * (query + key.sum() + value.sum())
    counts = mask.sum(dim=-1)  # [b, v, t]
    busy = counts > 0
    lengths = counts[busy].tolist()
    blocks = BlockDiagonalMask.from_seqlens([1] * len(lengths), lengths)
    attended = memory_efficient_attention(
        query[busy][None], key[entry, token][None], value[entry, token][None], attn_bias=blocks
    )
    out = torch.zeros_like(query)
    out[busy] = attended[0].to(out.dtype)
    return out
