"""The mesh renderer against spheres, quads and compositing worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch.testing import assert_close

from humansplat.geometry.projection import intrinsics, look_at, project
from humansplat.geometry.rays import camera_rays
from humansplat.render.lighting import Lighting, random_lighting, studio_lighting, unlit
from humansplat.render.meshes import ShadedMesh, render_meshes
from humansplat.structures import Cameras

SIZE = 64
UP = torch.tensor([0.0, 1.0, 0.0])


def flat_light(level: float = 1.0) -> Lighting:
    """Shows every surface in its own colour."""
    environment = np.zeros((9, 3), np.float32)
    environment[0] = level
    none = np.zeros((0, 3), np.float32)
    return Lighting(environment=environment, directions=none, colors=none)


def lamp_light(direction: tuple[float, float, float], level: float = 0.7) -> Lighting:
    unit = np.array([direction], np.float32) / np.linalg.norm(direction)
    colors = np.full((1, 3), level, np.float32)
    return Lighting(environment=np.zeros((9, 3), np.float32), directions=unit, colors=colors, softness=0.0)


def cameras_at(*eyes: tuple[float, float, float], size: int = SIZE) -> Cameras:
    """Cameras that look at the origin."""
    eye = torch.tensor(eyes)
    viewmats = look_at(eye, torch.zeros_like(eye), UP)
    return Cameras(viewmats=viewmats, Ks=intrinsics(0.6, size, size).expand(len(eyes), 3, 3), width=size, height=size)


def sphere(radius: float = 0.5, subdivisions: int = 4) -> ShadedMesh:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return ShadedMesh(vertices=np.asarray(ball.vertices), faces=np.asarray(ball.faces), specular=0.0)


def quad(z: float = 0.0, half: float = 0.5, texture: np.ndarray | None = None) -> ShadedMesh:
    """A square that faces +Z, its texture upright."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    return ShadedMesh(
        vertices=np.concatenate([half * corners, np.full((4, 1), z)], axis=1),
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
        uvs=0.5 * corners + 0.5,
        texture=texture,
        specular=0.0,
    )


def plain(red: int, green: int, blue: int, alpha: int = 255) -> np.ndarray:
    return np.full((4, 4, 4), [red, green, blue, alpha], np.uint8)


def srgb(linear: float) -> float:
    return 1.055 * linear ** (1 / 2.4) - 0.055


def test_sphere_agrees_with_its_equation():
    cameras = cameras_at((0.0, 0.3, 3.0), (2.0, -0.5, 1.5))
    pictures = render_meshes([sphere(subdivisions=5)], cameras, flat_light(), samples=3)
    origins, directions = camera_rays(cameras)
    along = (origins * directions).sum(-1)
    inside = along.square() - origins.square().sum(-1) + 0.25
    hit = -along - inside.clamp(min=0).sqrt()
    points = origins + hit[..., None] * directions
    depth = torch.einsum("chwk,ck->chw", points, cameras.viewmats[:, 2, :3]) + cameras.viewmats[:, 2, 3, None, None]
    well_inside = inside > 0.06  # away from the rim, where a pixel's samples differ
    assert_close(pictures.depth[well_inside], depth[well_inside], atol=4e-3, rtol=0)
    normals = pictures.normals.permute(0, 2, 3, 1)[well_inside]
    assert_close(normals, points[well_inside] / 0.5, atol=2e-2, rtol=0)
    # The silhouette is a cone around the line of sight; nearly a disc in the picture.
    for index in range(2):
        distance = origins[index, 0, 0].norm()
        focal = cameras.Ks[index, 0, 0]
        area = math.pi * (focal * 0.5 / (distance**2 - 0.25).sqrt()) ** 2
        assert pictures.rgba[index, 3].sum() == pytest.approx(area.item(), rel=0.01)
    assert not pictures.rgba[:, :, inside.amax(0) < -0.1].any()


def test_depth_and_color_are_zero_exactly_where_nothing_is_seen():
    pictures = render_meshes([sphere()], cameras_at((0.0, 0.0, 3.0)), flat_light())
    empty = pictures.rgba[:, 3] == 0
    assert empty.any()
    assert not pictures.rgba.movedim(1, -1)[empty].any()
    assert not pictures.depth[empty].any()
    assert (pictures.depth[pictures.rgba[:, 3] > 0.5] > 2.4).all()


@pytest.mark.parametrize("eye", [(0.0, 0.0, 3.0), (1.5, 0.8, 2.0), (-2.0, 0.1, -1.5)])
def test_points_appear_where_projection_puts_them(eye):
    cameras = cameras_at(eye, size=128)
    places = torch.tensor([[0.3, 0.2, 0.1], [-0.35, 0.1, 0.2], [0.1, -0.3, -0.2], [-0.2, -0.25, 0.1]])
    balls = []
    for index, place in enumerate(places):
        ball = sphere(0.04, 3)
        parts = np.full(len(ball.vertices), index, np.uint8)
        balls.append(replace(ball, vertices=ball.vertices + place.numpy(), parts=parts))
    pictures = render_meshes(balls, cameras, flat_light())
    xy, depth = project(places, cameras.viewmats[0], cameras.Ks[0])
    for index in range(len(places)):
        rows, columns = (pictures.parts[0] == index + 1).nonzero().float().add(0.5).unbind(1)
        assert_close(torch.stack([columns.mean(), rows.mean()]), xy[index], atol=0.5, rtol=0)
        seen = pictures.depth[0][pictures.parts[0] == index + 1]
        assert seen.min().item() == pytest.approx(depth[index].item() - 0.04, abs=3e-3)


def test_a_subject_facing_z_has_its_left_hand_on_the_right_of_the_picture():
    hand = replace(sphere(0.05), vertices=sphere(0.05).vertices + [0.4, 0.0, 0.0])  # the subject's left is +X
    pictures = render_meshes([hand], cameras_at((0.0, 0.0, 3.0)), flat_light())
    columns = pictures.rgba[0, 3].nonzero()[:, 1]
    assert columns.min() > SIZE // 2


def test_texture_stands_upright_and_keeps_its_colors():
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:] = (200, 30, 30), (30, 200, 30)
    texture[32:, :32], texture[32:, 32:] = (30, 30, 200), (90, 90, 90)
    picture = render_meshes([quad(texture=texture)], cameras_at((0.0, 0.0, 3.0)), flat_light()).rgba[0]
    rows, columns = (picture[3] == 1).nonzero().unbind(1)
    quarter = (rows.max() - rows.min()) // 4
    top, bottom = rows.min() + quarter, rows.max() - quarter
    left, right = columns.min() + quarter, columns.max() - quarter
    for row, column, color in (
        (top, left, (200, 30, 30)),
        (top, right, (30, 200, 30)),
        (bottom, left, (30, 30, 200)),
        (bottom, right, (90, 90, 90)),
    ):
        assert_close(picture[:3, row, column] * 255, torch.tensor(color).float(), atol=1.5, rtol=0)


def test_separate_texture_corners_equal_shared_ones():
    texture = np.random.default_rng(0).integers(0, 200, (16, 16, 3), dtype=np.uint8)
    shared = quad(texture=texture)
    assert shared.uvs is not None
    split = replace(shared, uvs=shared.uvs[::-1].copy(), uv_faces=3 - shared.faces)
    cameras = cameras_at((0.3, 0.0, 3.0))
    assert_close(
        render_meshes([shared], cameras, flat_light()).rgba, render_meshes([split], cameras, flat_light()).rgba
    )


def test_far_textures_are_averaged_not_sampled():
    checker = (np.indices((512, 512)).sum(0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)
    picture = render_meshes([quad(texture=checker)], cameras_at((0.0, 0.0, 3.0)), flat_light()).rgba[0]
    inside = picture[0][picture[3] == 1] * 255
    assert inside.std() < 2
    assert inside.mean().item() == pytest.approx(100, abs=3)


def test_see_through_layers_are_blended_in_order():
    near = replace(quad(0.1, texture=plain(200, 0, 0, 102)), alpha="blend", casts_shadow=False)
    far = replace(quad(0.0, texture=plain(0, 200, 0, 128)), alpha="blend")
    for meshes in ([near, far], [far, near]):
        rgba = render_meshes(meshes, cameras_at((0.0, 0.0, 3.0)), flat_light()).rgba[0, :, SIZE // 2, SIZE // 2]
        front, back = 102 / 255, (1 - 102 / 255) * 128 / 255
        assert rgba[3].item() == pytest.approx(front + back, abs=2e-3)
        assert rgba[0].item() == pytest.approx(front * 200 / 255 / (front + back), abs=3e-3)
        assert rgba[1].item() == pytest.approx(back * 200 / 255 / (front + back), abs=3e-3)


def test_a_stack_of_hair_cards_never_opens_the_head():
    cards = [replace(quad(0.01 * i, texture=plain(90, 60, 30, 20)), alpha="blend") for i in range(20)]
    picture = render_meshes([quad(-0.2, 0.6), *cards], cameras_at((0.0, 0.0, 3.0)), flat_light()).rgba[0]
    assert picture[3, SIZE // 2, SIZE // 2] == 1


@pytest.mark.parametrize("gap", [0.0, 1e-5, -1e-4])
def test_cards_that_touch_the_skin_do_not_open_it(gap: float):
    """A step past the card must not step past the skin, nor meet the card again."""
    card = replace(quad(gap, texture=plain(0, 0, 0, 0)), alpha="blend", casts_shadow=False)
    tilted = card.vertices + np.array([0.0, 0.0, 1.0]) * card.vertices[:, :1] * 1e-2  # crosses the skin in a line
    skin = replace(quad(0.0, 0.7), color=(0.5, 0.5, 0.5))
    behind = replace(quad(-0.4, 0.9), color=(0.0, 0.0, 0.9))
    picture = render_meshes([skin, replace(card, vertices=tilted), behind], cameras_at((0.6, 0.4, 2.8)), flat_light())
    inner = picture.rgba[0, :, 22:42, 22:42]
    assert (inner[3] == 1).all()
    assert_close(inner[0], torch.full_like(inner[0], srgb(0.5)), atol=2e-3, rtol=0)


def test_cutout_leaves_holes_and_opaque_ignores_alpha():
    texture = plain(100, 100, 100, 0)
    texture[:, 2:, 3] = 255
    cameras = cameras_at((0.0, 0.0, 3.0))
    cut = render_meshes([replace(quad(texture=texture), alpha="cutout")], cameras, flat_light())
    whole = render_meshes([quad(texture=texture)], cameras, flat_light())
    middle = slice(SIZE // 2 - 4, SIZE // 2 + 4)
    assert not cut.rgba[0, 3, middle, 20:29].any()
    assert (cut.rgba[0, 3, middle, 35:44] == 1).all()
    assert (whole.rgba[0, 3, middle, 20:44] == 1).all()


def test_half_transparent_surfaces_do_not_own_the_part_map():
    card = replace(quad(0.1, texture=plain(0, 0, 0, 60)), alpha="blend", parts=np.full(4, 5, np.uint8))
    skin = replace(quad(0.0), parts=np.full(4, 2, np.uint8))
    pictures = render_meshes([card, skin], cameras_at((0.0, 0.0, 3.0)), flat_light())
    assert pictures.parts[0, SIZE // 2, SIZE // 2] == 3
    assert pictures.depth[0, SIZE // 2, SIZE // 2].item() == pytest.approx(3.0, abs=1e-3)


def test_back_faces_show_only_on_two_sided_meshes():
    cameras = cameras_at((0.0, 0.0, 3.0), (0.0, 0.0, -3.0))
    one_sided = render_meshes([replace(quad(), two_sided=False)], cameras, flat_light())
    assert one_sided.rgba[0, 3].any()
    assert not one_sided.rgba[1].any()
    two_sided = render_meshes([quad()], cameras, flat_light())
    assert two_sided.rgba[1, 3].any()
    assert two_sided.normals[1, 2, SIZE // 2, SIZE // 2].item() == pytest.approx(-1)


def test_edges_have_the_color_of_the_surface():
    picture = render_meshes([replace(sphere(), color=(0.5, 0.4, 0.3))], cameras_at((0.0, 0.0, 3.0)), flat_light())
    rgba = picture.rgba[0].movedim(0, -1)
    edge = rgba[(rgba[..., 3] > 0) & (rgba[..., 3] < 1)]
    assert len(edge) > 20
    assert_close(edge[:, 0], torch.full((len(edge),), srgb(0.5)), atol=1e-3, rtol=0)
    assert_close(edge[:, 2], torch.full((len(edge),), srgb(0.3)), atol=1e-3, rtol=0)


def test_unlit_pictures_show_every_value_of_a_texture_to_the_byte():
    """Glossy, one quad under another, and still each of the 256 values comes out as it went in."""
    greys = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 16, axis=0).repeat(16, axis=1)
    texture = np.stack([greys, greys[::-1], greys.T], axis=-1)
    card = replace(quad(texture=texture), specular=0.5, roughness=0.1)
    cameras = cameras_at((0.0, 0.0, 3.0), size=200)
    cameras = replace(cameras, Ks=intrinsics(2 * math.atan(0.5 / 3), 200, 200)[None])  # the quad fills the picture
    rgba = render_meshes([card, replace(quad(0.3, 0.02), color=(0.0, 0.0, 0.0))], cameras, unlit()).rgba[0]
    places = ((np.arange(16) + 0.5) * 200 / 16).astype(int)
    seen = (rgba[:3, places][:, :, places] * 255).round().byte().movedim(0, -1).numpy()
    shown = texture[8::16, 8::16]
    hidden = (slice(7, 9), slice(7, 9))  # by the small one
    seen[hidden] = shown[hidden]
    np.testing.assert_array_equal(seen, shown)


@pytest.mark.parametrize("light", [unlit(), flat_light()])
def test_vertex_colors_are_interpolated_as_they_are_stored(light: Lighting):
    colors = np.array([[0, 20, 170], [100, 20, 130], [160, 180, 130], [60, 180, 170]], np.uint8)  # planes of sRGB
    card = replace(quad(), vertex_colors=colors)
    cameras = cameras_at((0.4, -0.3, 2.5))
    pictures = render_meshes([card], cameras, light)
    inside = pictures.rgba[0, 3] == 1
    origins, directions = camera_rays(cameras)
    points = (origins - origins[..., 2:] / directions[..., 2:] * directions)[0][inside]
    x, y = points[:, 0] + 0.5, points[:, 1] + 0.5
    expected = torch.stack([100 * x + 60 * y, 20 + 160 * y, 170 - 40 * x], dim=-1) / 255
    assert_close(pictures.rgba[0, :3][:, inside].T, expected, atol=1.2 / 255, rtol=0)


def test_a_texture_hides_vertex_colors_and_the_factor_tints_them():
    colors = np.full((4, 3), 128, np.uint8)
    middle = (0, slice(0, 3), SIZE // 2, SIZE // 2)
    cameras = cameras_at((0.0, 0.0, 3.0))
    both = render_meshes([replace(quad(texture=plain(200, 0, 0)), vertex_colors=colors)], cameras, unlit())
    assert_close(both.rgba[middle], torch.tensor([200, 0, 0]) / 255, atol=4e-4, rtol=0)
    tinted = render_meshes([replace(quad(), vertex_colors=colors, color=(0.5, 0.0, 1.0))], cameras, unlit())
    linear = ((128 / 255 + 0.055) / 1.055) ** 2.4
    assert_close(tinted.rgba[middle], torch.tensor([srgb(0.5 * linear), 0.0, 128 / 255]), atol=5e-4, rtol=0)


def test_pieces_with_and_without_vertex_colors_keep_their_own():
    pieces = [
        quad(0.0, texture=plain(200, 0, 0)),
        replace(quad(), vertices=quad().vertices * 0.3 + [0.0, 0.3, 0.1], color=(0.0, 1.0, 0.0)),
        replace(
            quad(), vertices=quad().vertices * 0.3 - [0.0, 0.3, -0.1], vertex_colors=np.full((4, 3), 77, np.uint8)
        ),
    ]
    picture = render_meshes(pieces, cameras_at((0.0, 0.0, 3.0)), unlit()).rgba[0, :3] * 255
    for row, color in ((0, [200, 0, 0]), (-10, [0, 255, 0]), (10, [77, 77, 77])):
        assert_close(picture[:, SIZE // 2 + row, SIZE // 2], torch.tensor(color).float(), atol=0.1, rtol=0)


def test_depth_and_normals_at_an_edge_are_those_of_the_surface_in_front():
    """A small square before a tilted wall; no pixel mixes the two, and hits of one ray in four count."""
    tilt = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    wall = replace(quad(0.0, 2.5), vertices=quad(0.0, 2.5).vertices @ tilt.T - [0.0, 0.0, 2.0])
    cameras = cameras_at((0.05, 0.02, 3.0))
    alone, both = (render_meshes(meshes, cameras, flat_light()) for meshes in ([quad()], [quad(), wall]))
    edge = (alone.rgba[0, 3] > 0) & (alone.rgba[0, 3] < 1)
    assert edge.sum() > 60
    assert_close(both.depth[0][edge], alone.depth[0][edge], atol=1e-5, rtol=0)
    assert_close(both.normals[0][:, edge], torch.tensor([0.0, 0.0, 1.0])[:, None].expand(3, int(edge.sum())))
    seen = alone.rgba[0, 3] > 0
    assert torch.equal(seen, alone.depth[0] > 0)
    assert torch.equal(seen, alone.normals[0].norm(dim=0) > 0)
    assert both.normals[0, 1, 2, 2].item() == pytest.approx(-0.6, abs=1e-5)


def test_lamps_follow_lamberts_law():
    pictures = render_meshes([sphere()], cameras_at((0.0, 0.0, 3.0)), lamp_light((0.0, 0.6, 0.8)))
    lit = torch.einsum("khw,k->hw", pictures.normals[0], torch.tensor([0.0, 0.6, 0.8]))
    clear = (lit > 0.3) & (pictures.normals[0, 2] > 0.5)  # shadow rays soften the terminator, samples mix at the rim
    expected = 1.055 * (0.7 * lit[clear]) ** (1 / 2.4) - 0.055
    assert_close(pictures.rgba[0, 0][clear], expected, atol=0.02, rtol=0)
    dark = (lit < -0.08) & (pictures.rgba[0, 3] == 1)
    assert pictures.rgba[0, 0][dark].max() < 0.05


def grid(half: float, steps: int) -> ShadedMesh:
    ticks = np.linspace(-half, half, steps)
    x, y = np.meshgrid(ticks, ticks)
    ids = np.arange(steps * steps).reshape(steps, steps)
    a, b, c, d = ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return ShadedMesh(vertices=np.stack([x.ravel(), y.ravel(), np.zeros(steps**2)], axis=1), faces=faces, specular=0.0)


def test_things_cast_shadows_unless_told_not_to():
    wall = grid(0.6, 41)
    post = replace(quad(0.3, 0.15), vertices=quad(0.3, 0.15).vertices + [0.3, 0.0, 0.0])
    light = lamp_light((1.0, 0.0, 1.0))  # throws the post's shadow onto the middle of the wall
    cameras = cameras_at((0.0, 0.0, 3.0))
    shadowed = render_meshes([wall, post], cameras, light).rgba[0, 0]
    open_wall = render_meshes([wall, replace(post, casts_shadow=False)], cameras, light).rgba[0, 0]
    assert shadowed[SIZE // 2, SIZE // 2] < 0.05
    assert open_wall[SIZE // 2, SIZE // 2].item() == pytest.approx(srgb(0.7 * math.sqrt(0.5)), abs=0.02)
    assert_close(shadowed[SIZE // 2, 12:16], open_wall[SIZE // 2, 12:16], atol=1e-3, rtol=0)


def test_cutting_a_mesh_along_a_seam_leaves_no_trace():
    whole, light = sphere(), random_lighting(np.random.default_rng(1))
    corners = np.arange(whole.faces.size).reshape(-1, 3)
    normals = whole.vertices / 0.5
    split = replace(whole, vertices=whole.vertices[whole.faces].reshape(-1, 3), faces=corners)
    split = replace(split, normals=normals[whole.faces].reshape(-1, 3))
    post = replace(quad(0.7, 0.2), vertices=quad(0.7, 0.2).vertices + [0.2, 0.1, 0.0])
    cameras = cameras_at((0.4, 0.2, 3.0))
    one = render_meshes([replace(whole, normals=normals), post], cameras, light)
    other = render_meshes([split, post], cameras, light)
    assert (one.rgba - other.rgba).abs().max() < 0.02


def test_nothing_casting_shadows_leaves_the_light_open():
    ghosts = [replace(mesh, casts_shadow=False) for mesh in (quad(0.2, 0.2), quad(0.0))]
    rgba = render_meshes(ghosts, cameras_at((0.0, 0.0, 3.0)), flat_light(0.5)).rgba[0]
    assert_close(rgba[0, rgba[3] == 1], torch.full((int((rgba[3] == 1).sum()),), srgb(0.5)), atol=2e-3, rtol=0)


def test_gloss_adds_light_only_near_the_mirror_direction():
    light = lamp_light((0.0, 0.0, 1.0), 0.4)
    matt = render_meshes([sphere()], cameras_at((0.0, 0.0, 3.0)), light).rgba[0, 0]
    shiny = render_meshes([replace(sphere(), specular=0.04, roughness=0.3)], cameras_at((0.0, 0.0, 3.0)), light).rgba[
        0, 0
    ]
    assert shiny[SIZE // 2, SIZE // 2] > matt[SIZE // 2, SIZE // 2] + 0.05
    assert_close(shiny[SIZE // 2, 22], matt[SIZE // 2, 22], atol=0.02, rtol=0)


def test_order_of_the_pieces_changes_nothing():
    meshes = [sphere(0.3), replace(quad(0.1), color=(0.2, 0.3, 0.4)), replace(sphere(0.2), color=(0.9, 0.1, 0.1))]
    cameras = cameras_at((1.0, 0.5, 2.5))
    one = render_meshes(meshes, cameras, studio_lighting())
    other = render_meshes(meshes[::-1], cameras, studio_lighting())
    # Occlusion rays turn with the vertex number, so shades differ a little; shapes do not.
    assert_close(one.rgba[:, 3], other.rgba[:, 3])
    assert_close(one.depth, other.depth)
    assert (one.rgba - other.rgba).abs().mean() < 5e-3


def test_views_do_not_depend_on_each_other_nor_on_batches(monkeypatch):
    cameras = cameras_at((0.0, 0.3, 3.0), (2.0, -0.5, 1.5))
    together = render_meshes([sphere()], cameras, studio_lighting())
    alone = render_meshes([sphere()], cameras[1:], studio_lighting())
    assert torch.equal(together.rgba[1:], alone.rgba)
    monkeypatch.setattr("humansplat.render.meshes.RAYS_A_BATCH", 1000)
    assert torch.equal(render_meshes([sphere()], cameras, studio_lighting()).rgba, together.rgba)


def test_cameras_inside_or_turned_away_give_whole_or_empty_pictures():
    inside = render_meshes([sphere()], cameras_at((0.0, 0.0, 0.1)), flat_light())
    assert (inside.rgba[0, 3] == 1).all()
    away = cameras_at((0.0, 0.0, 3.0))
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])) @ away.viewmats
    assert not render_meshes([sphere()], replace(away, viewmats=turned), flat_light()).rgba.any()


def test_random_light_is_neither_black_nor_burnt_out():
    means = []
    for seed in range(12):
        rgba = render_meshes(
            [replace(sphere(), color=(0.4, 0.4, 0.4))],
            cameras_at((0.0, 0.0, 3.0)),
            random_lighting(np.random.default_rng(seed)),
        ).rgba[0]
        means.append(rgba[:3, rgba[3] == 1].mean().item())
    assert min(means) > 0.3
    assert max(means) < 0.85
    assert np.std(means) > 0.02


def test_random_light_repeats_with_its_seed():
    one, other = (random_lighting(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.environment, other.environment)
    np.testing.assert_allclose(np.linalg.norm(one.directions, axis=1), 1, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no faces"):
        render_meshes([], cameras_at((0.0, 0.0, 3.0)))
    with pytest.raises(ValueError, match="one axis of cameras"):
        render_meshes([sphere()], cameras_at((0.0, 0.0, 3.0))[0])
