import torch

from humansplat.geometry.sampling import farthest_points


def test_farthest_points_cover_evenly(rng):
    points = torch.rand(500, 3, generator=rng)
    chosen = farthest_points(points, 40)
    assert len(set(chosen.tolist())) == 40
    far = torch.cdist(points, points[chosen]).amin(dim=1).max()
    random = torch.cdist(points, points[:40]).amin(dim=1).max()
    assert far < random
    assert farthest_points(points, 900).tolist() == list(range(500))


def test_farthest_come_first():
    line = torch.tensor([0.0, 0.1, 0.2, 0.45, 1.0])[:, None] * torch.tensor([1.0, 0.0, 0.0])
    assert farthest_points(line, 4, first=0).tolist() == [0, 4, 3, 2]
    assert farthest_points(line, 2).tolist() == [4, 0]
