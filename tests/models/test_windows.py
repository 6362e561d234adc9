import math

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at
from humansplat.models.layers import Attention
from humansplat.models.windows import project_to_cells, window_mask
from humansplat.structures import Cameras


def cell_centers(grid: int) -> torch.Tensor:
    index = torch.arange(grid * grid)
    return (torch.stack([index % grid, index // grid], dim=-1) + 0.5)[None, None]


@pytest.mark.parametrize(("window", "cells_seen"), [(1.0, 1), (2.0, 4), (3.0, 9), (4.0, 16), (5.0, 25)])
def test_a_token_is_seen_by_window_squared_cells(window, cells_seen):
    """For odd and even K alike, away from the borders and from the cells' edges."""
    token = torch.tensor([[[[8.3, 7.8]]]])
    mask = window_mask(cell_centers(16), token, torch.ones(1, 1, 1, dtype=torch.bool), window)
    assert mask.sum() == cells_seen


def test_unlimited_window_sees_every_token_inside_and_no_other():
    tokens = torch.rand(1, 1, 10, 2) * 16
    inside = torch.arange(10)[None, None] < 6
    mask = window_mask(cell_centers(16), tokens, inside, math.inf)
    assert mask[..., :6].all()
    assert not mask[..., 6:].any()


def test_tokens_land_in_the_cell_of_their_pixel():
    camera = Cameras(
        viewmats=look_at(torch.tensor([[[0.0, 0, 3]]]), torch.zeros(1, 1, 3), torch.tensor([0.0, 1, 0])),
        Ks=intrinsics(0.5, 256, 256)[None, None],
        width=256,
        height=256,
    )
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 5.0], [9.0, 0.0, 0.0]]])
    cells, inside = project_to_cells(points, camera, 8)
    torch.testing.assert_close(cells[0, 0, 0], torch.tensor([16.0, 16.0]))
    assert inside[0, 0].tolist() == [True, False, False]  # ahead, behind the camera, beside the picture


def test_a_query_without_keys_gets_zero_and_no_gradient(rng):
    attention = Attention(width=8, num_heads=2)
    torch.nn.init.zeros_(attention.to_out.bias)
    queries = torch.randn(1, 3, 8, generator=rng, requires_grad=True)
    allowed = torch.tensor([[[True, False], [False, False], [True, True]]])
    out = attention(queries, torch.randn(1, 2, 8, generator=rng), allowed)
    assert (out[0, 1] == 0).all()
    assert (out[0, [0, 2]] != 0).any()
    out.sum().backward()
    assert (queries.grad[0, 1] == 0).all()
    assert queries.grad.isfinite().all()


def test_masked_attention_equals_attention_over_the_allowed_tokens(rng):
    attention = Attention(width=8, num_heads=2).double()
    queries, context = torch.randn(1, 5, 8, generator=rng).double(), torch.randn(1, 7, 8, generator=rng).double()
    allowed = torch.rand(1, 5, 7, generator=rng) < 0.5
    allowed[..., 0] = True
    masked = attention(queries, context, allowed)
    for i in range(5):
        alone = attention(queries[:, i : i + 1], context[:, allowed[0, i]])
        torch.testing.assert_close(masked[:, i : i + 1], alone)
