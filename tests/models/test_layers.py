import math

import torch

from humansplat.models.layers import Attention, WindowedAttention
from humansplat.models.windowed_attention import plan_windows


def test_an_unlimited_window_is_plain_attention_to_all_tokens_in_the_picture(rng):
    module = WindowedAttention(width=16, num_heads=2)
    queries, context = torch.randn(1, 18, 16, generator=rng), torch.randn(1, 7, 16, generator=rng)
    cells, tokens = 3 * torch.rand(1, 2, 9, 2, generator=rng), 3 * torch.rand(1, 2, 7, 2, generator=rng)
    inside = torch.arange(7).expand(1, 2, 7) < 5
    windows = plan_windows(cells, tokens, inside, math.inf)
    torch.testing.assert_close(module(queries, context, windows), Attention.forward(module, queries, context[:, :5]))
