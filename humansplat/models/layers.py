"""Building blocks of the transformers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.models.windowed_attention import Windows, attend


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

    def forward(self, queries: Float[Tensor, "b t d"], context: Float[Tensor, "b s d"]) -> Float[Tensor, "b t d"]:
        """Attend from ``queries`` to ``context``, normed tokens both."""
        query, key, value = self._project(queries, context)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [b, h, t, c]
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(attended.transpose(1, 2).flatten(-2))

    def _project(
        self, queries: Float[Tensor, "b t d"], context: Float[Tensor, "b s d"]
    ) -> tuple[Float[Tensor, "b t h c"], Float[Tensor, "b s h c"], Float[Tensor, "b s h c"]]:
        key, value = self.to_key_value(context).chunk(2, dim=-1)
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)) for x in (self.to_query(queries), key, value))
        return _rms_norm(query, self.query_norm), _rms_norm(key, self.key_norm), value


class WindowedAttention(Attention):
    """Projection-aware cross-attention: a cell sees the body tokens that project into a window around it.

    The module of :func:`humansplat.models.windowed_attention.windowed_attention`, with the parameters of
    :class:`Attention`.
    """

    def forward(  # type: ignore[override]
        self, queries: Float[Tensor, "b t d"], context: Float[Tensor, "b j d"], windows: Windows
    ) -> Float[Tensor, "b t d"]:
        """Attend from the cells of all views to the body's tokens.

        Args:
            queries: Normed tokens of the cells, view after view.
            context: Normed tokens of the body.
            windows: Who sees whom, from ``plan_windows``; a cell that sees nothing gets zero, before the output
                projection's bias.
        """
        query, key, value = self._project(queries, context)
        attended = attend(query.unflatten(1, (windows.num_views, -1)), key, value, windows)
        return self.to_out(attended.flatten(1, 2).flatten(-2))


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
        self.cross_attention = WindowedAttention(width=width, num_heads=num_heads)
        self.self_block = SelfAttentionBlock(width=width, num_heads=num_heads)

    def forward(
        self, x: Float[Tensor, "b t d"], body: Float[Tensor, "b j d"], windows: Windows
    ) -> Float[Tensor, "b t d"]:
        x = x + self.cross_attention(self.norm_cross(x), self.norm_body(body), windows)
        return self.self_block(x)
