import math

import pytest
import torch
import trimesh

from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.render.body_maps import rasterize_body, rasterize_parts, sample_surface, vertex_normals
from humansplat.structures import Cameras, PosedBody

UP = torch.tensor([0.0, 1.0, 0.0])


def sphere(radius: float = 0.5) -> PosedBody:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    return PosedBody(
        vertices=vertices[None],
        joints=torch.zeros(1, 1, 3),
        canonical=vertices,
        faces=torch.tensor(mesh.faces),
        parts=torch.zeros(len(vertices), dtype=torch.long),
    )


def cameras(size: int = 64) -> Cameras:
    camera = Cameras(
        viewmats=look_at(torch.tensor([[0.0, 0.0, 3.0]]), torch.zeros(1, 3), UP),
        Ks=intrinsics(math.radians(30), size, size)[None],
        width=size,
        height=size,
    )
    return orbit(camera, torch.zeros(1, 3), torch.arange(4) * math.pi / 2)


def test_a_sphere_looks_as_the_formula_says():
    body, views = sphere(), cameras(512)
    maps = rasterize_body(body, views, sample_surface(body.canonical, body.faces), size=64)
    seen = views.resized(64, 64)
    # The outline of a sphere of radius r at distance d is a circle of angular radius asin(r / d).
    radius_px = math.tan(math.asin(0.5 / 3.0)) * seen.Ks[0, 0, 0, 0].item()
    area = maps.hit[0].float().sum(dim=(1, 2))
    assert ((area - math.pi * radius_px**2).abs() < 2.5 * 2 * math.pi * radius_px / 2).all()  # pixels of the rim
    assert maps.depth[0, :, 32, 32].sub(2.5).abs().max() < 0.01
    assert maps.far_depth[0, :, 32, 32].sub(3.5).abs().max() < 0.01
    points, normals = maps.points[maps.hit], maps.normals[maps.hit]
    torch.testing.assert_close(points.norm(dim=-1), torch.full((len(points),), 0.5), rtol=0, atol=2e-3)
    torch.testing.assert_close(normals, points / 0.5, rtol=0, atol=0.05)


def test_no_holes_inside_the_outline():
    body = sphere()
    maps = rasterize_body(body, cameras(), sample_surface(body.canonical, body.faces), size=128)
    rows = maps.hit[0, 0].float()
    span = (rows.cumsum(1) > 0) & (rows.flip(1).cumsum(1).flip(1) > 0)
    assert (span & ~maps.hit[0, 0]).sum() <= 0.001 * span.sum()


def test_samples_spread_by_area():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])  # areas 0.5 and 1.5
    samples = sample_surface(vertices, faces, num_points=4000)
    assert ((samples.corners[:, 0] == 3).float().mean().item()) == pytest.approx(0.75, abs=1e-3)
    points = samples.interpolate(vertices)
    second = samples.corners[:, 0] == 3
    torch.testing.assert_close(
        points[second].mean(0), vertices[3:].mean(0), rtol=0, atol=0.05
    )  # uniform: the centroid


def test_normals_point_outwards_and_have_unit_length():
    body = sphere(2.0)
    normals = vertex_normals(body.vertices, body.faces)
    torch.testing.assert_close(normals, body.vertices / 2.0, rtol=0, atol=0.01)


def test_what_lies_behind_the_camera_is_not_seen():
    body, views = sphere(), cameras()
    turned = Cameras(
        viewmats=torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ views.viewmats,
        Ks=views.Ks,
        width=views.width,
        height=views.height,
    )
    maps = rasterize_body(body, turned, sample_surface(body.canonical, body.faces), size=32)
    assert not maps.hit.any()
    assert (maps.points == 0).all()


def test_part_maps_show_the_nearest_part_without_gaps():
    inner, outer = sphere(0.4), sphere(0.5)
    num_vertices = len(inner.canonical)
    upper = (outer.canonical[:, 1] > 0).long()
    body = PosedBody(
        vertices=torch.cat([inner.vertices, outer.vertices], dim=1),
        joints=torch.zeros(1, 1, 3),
        canonical=torch.cat([inner.canonical, outer.canonical]),
        faces=torch.cat([inner.faces, outer.faces + num_vertices]),
        parts=torch.cat([torch.full_like(upper, 7), upper + 3]),
    )
    for num_points, most in ((65_536, 0), (8_000, 0.02)):  # hardly two points a pixel: others show through
        samples = sample_surface(body.canonical, body.faces, num_points)
        maps = rasterize_parts(body, cameras(), samples, size=64)
        assert set(maps.unique().tolist()) <= {0, 4, 5, 8}
        hidden = (maps == 8).sum() / (maps > 0).sum()
        assert hidden <= most
        rows = torch.arange(64)[:, None].expand_as(maps)
        assert (rows[maps == 5] < 34).all()
        assert (rows[maps == 4] > 30).all()
