"""Building blocks of the transformers."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with RMS-normed queries and keys.

    The norm bounds the logits, which keeps bf16 training stable (Dehghani et al., "Scaling Vision
    Transformers to 22 Billion Parameters", 2023).
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width ({width}) must be divisible by num_heads ({num_heads})")
        self.num_heads = num_heads
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.query_norm = nn.RMSNorm(width // num_heads, eps=1e-6)
        self.key_norm = nn.RMSNorm(width // num_heads, eps=1e-6)
        self.to_out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "b t d"],
        context: Float[Tensor, "b s d"],
        allowed: Bool[Tensor, "b t s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Attend from ``queries`` to ``context``.

        Args:
            queries: Normed query tokens.
            context: Normed key and value tokens.
            allowed: Pairs that may see each other; a query without any gets zero, before the output
                projection's bias.
        """
        key, value = self.to_key_value(context).chunk(2, dim=-1)
        query = _rms_norm(self._split(self.to_query(queries)), self.query_norm)
        key, value = _rms_norm(self._split(key), self.key_norm), self._split(value)
        if allowed is None:
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            lonely = ~allowed.any(dim=-1, keepdim=True)  # [b, t, 1]
            mask = (allowed | lonely)[:, None]  # a row without a key would be 0 / 0
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            attended = attended.masked_fill(lonely[:, None], 0.0)
        return self.to_out(attended.transpose(1, 2).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [b, heads, t, d / heads]


def _rms_norm(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """``norm(x)`` in the precision of ``x``: under autocast a float32 weight would miss the fused kernel."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps).to(x.dtype)


class FeedForward(nn.Sequential):
    """Two linear layers, four times as wide inside."""

    def __init__(self, *, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class SelfAttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width=width, num_heads=num_heads)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = FeedForward(width=width)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed)
        return x + self.feed(self.norm_feed(x))


class BodyAttentionBlock(nn.Module):
    """Windowed cross-attention to body tokens, then self-attention and feed-forward.

    The inter block of HumanSplat (section 3.4, Fig. 2).
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_cross = nn.LayerNorm(width)
        self.norm_body = nn.LayerNorm(width)
        self.cross_attention = Attention(width=width, num_heads=num_heads)
        self.self_block = SelfAttentionBlock(width=width, num_heads=num_heads)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        body: Float[Tensor, "b j d"],
        allowed: Bool[Tensor, "b t j"],
    ) -> Float[Tensor, "b t d"]:
        x = x + self.cross_attention(self.norm_cross(x), self.norm_body(body), allowed)
        return self.self_block(x)
