import math

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at
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
