import math

import torch

from humansplat.body.fit_silhouette import (
    draw_silhouette,
    nearest_points,
    overlap,
    sample_outside,
    silhouette_from_mask,
)
from humansplat.geometry.rays import pixel_centers


def disc(side=64, radius=0.3):
    distance = (pixel_centers(side, side) / side - 0.5).norm(dim=-1)
    return ((radius - distance) * side + 0.5).clamp(0, 1)


def test_the_contour_of_a_disc_is_a_circle_with_outward_normals():
    target = silhouette_from_mask(disc())
    offset = target.boundary - 0.5
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((len(offset),), 0.3), atol=0.004, rtol=0)
    assert ((offset / offset.norm(dim=-1, keepdim=True) * target.normals).sum(-1) > 0.95).all()


def test_distances_outside_grow_and_point_away():
    target = silhouette_from_mask(disc(128))
    points = torch.tensor([[0.5, 0.5], [0.9, 0.5], [0.5, 0.05], [1.2, 0.5]])
    distance, slope = sample_outside(target, points)
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.1, 0.15, 0.4]), atol=0.012, rtol=0)
    assert slope[1, 0] > 0.9
    assert slope[2, 1] < -0.9
    assert slope[0].abs().max() == 0


def test_a_contour_point_takes_the_rim_before_it_and_not_a_nearer_one_beside_it():
    boundary, normals = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    points = torch.tensor([[[0.44, 0.5], [0.5, 0.54]]])
    assert nearest_points(boundary, normals, points).item() == 0


def test_drawn_triangles_cover_their_area_once_and_only_from_the_front():
    square = torch.tensor([[8.0, 8.0], [40.0, 8.0], [40.0, 24.0], [8.0, 24.0]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])  # counter-clockwise on a page with y up
    drawn = draw_silhouette(square, faces, 64)
    assert math.isclose(float(drawn.sum()), 32 * 16, rel_tol=0.1)
    assert drawn[9:23, 9:39].all()
    assert not draw_silhouette(square, faces.flip(1), 64).any()


def test_overlap_of_equal_half_and_empty_silhouettes():
    full, half = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    assert overlap(full, full) == 1.0
    assert overlap(full, half) == 0.5
    assert overlap(~full, ~full) == 1.0
