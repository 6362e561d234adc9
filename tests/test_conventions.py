"""Each numbered line of ``docs/conventions.md`` has the test of that number here."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_report import world_frame
from humansplat.body.fit_start import MAX_LIFTED_PITCH
from humansplat.body.fit_terms import CROP_FOV
from humansplat.capture.crop import canonical_square, mask_box
from humansplat.geometry.projection import intrinsics, look_at, orbit, project, to_camera
from humansplat.geometry.rays import camera_rays, pixel_centers
from humansplat.geometry.rotations import axis_angle_to_matrix, quaternion_to_matrix
from humansplat.io.images import to_bytes
from humansplat.models.autoencoder import on_white
from humansplat.render import render_gaussians
from humansplat.render.meshes import render_meshes
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras, Gaussians

UP = torch.tensor([0.0, 1.0, 0.0])
PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"


def camera_at(x, y, z, size=33, target=(0.0, 0.0, 0.0)):
    view = look_at(torch.tensor([x, y, z]), torch.tensor(target), UP)
    return Cameras(viewmats=view, Ks=intrinsics(math.radians(30), size, size), width=size, height=size)


def see(camera, *point):
    """Pixel and depth of a world point."""
    xy, depth = project(torch.tensor([point]), camera.viewmats, camera.Ks)
    return xy[0].tolist(), depth[0].item()


def one_splat(mean, scales=(0.1, 0.1, 0.1), quat=(1.0, 0.0, 0.0, 0.0), opacity=0.99, color=(1.0, 0.0, 0.0)):
    return Gaussians(
        means=torch.tensor([mean]),
        quats=torch.tensor([quat]),
        scales=torch.tensor([scales]),
        opacities=torch.tensor([opacity]),
        colors=torch.tensor([color]),
    )


def photograph(splats, camera, background=None):
    return render_gaussians(splats, camera.map(lambda tensor: tensor[None]), background)


@pytest.fixture(scope="module")
def body():
    model = AnnyBody.load()
    return model.pose({}), model


def square_mesh(**fields):
    """A square of one metre on the plane z = 0, seen from +Z."""
    return ShadedMesh(
        vertices=np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32),
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
        **fields,
    )


def test_every_line_has_its_test():
    lines = [int(number) for number in re.findall(r"^(\d+)\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)]
    assert lines == list(range(1, len(lines) + 1))
    tests = sorted(int(match[1]) for name in globals() if (match := re.match(r"test_(\d+)_", name)))
    assert tests == lines


def test_01_lengths_are_metres(body):
    assert see(camera_at(0.0, 0.0, 2.0), 0.0, 0.0, 0.0)[1] == pytest.approx(2.0)
    posed, _ = body
    assert 1.4 < (posed.vertices[:, 1].max() - posed.vertices[:, 1].min()).item() < 2.0


def test_02_angles_are_radians():
    quarter = axis_angle_to_matrix(torch.tensor([0.0, math.pi / 2, 0.0]))
    torch.testing.assert_close(quarter @ torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))


def test_03_up_is_y_and_smaller_rows():
    camera = camera_at(0.0, 0.0, 2.0)
    assert see(camera, 0.0, 0.1, 0.0)[0][1] < see(camera, 0.0, 0.0, 0.0)[0][1]


def test_04_the_subject_faces_z_and_its_left_is_x(body):
    posed, model = body
    names = {name: index for index, name in enumerate(model.joint_names)}
    assert posed.joints[names["wrist.L"], 0] > 0.2
    toes = posed.vertices[posed.vertices[:, 1] < 0.03]
    assert toes[:, 2].max() > -toes[:, 2].min()
    camera = camera_at(0.0, 1.0, 4.0, target=(0.0, 1.0, 0.0))
    assert see(camera, *posed.joints[names["wrist.L"]].tolist())[0][0] > camera.width / 2


def test_05_the_origin_is_on_the_ground_under_the_subject(body):
    posed, _ = body
    assert posed.vertices[:, 1].min().item() == pytest.approx(0.0, abs=1e-5)
    assert posed.joints[0, [0, 2]].abs().max().item() < 1e-5


def test_06_cameras_look_along_z_with_x_right_and_y_down():
    camera = Cameras(viewmats=torch.eye(4), Ks=intrinsics(0.5, 8, 8), width=8, height=8)
    (x, y), depth = see(camera, 0.1, 0.1, 1.0)
    assert (x > 4, y > 4, depth > 0) == (True, True, True)


def test_07_viewmats_take_world_to_camera_by_columns():
    camera = camera_at(1.0, 2.0, 3.0)
    column = camera.viewmats @ torch.tensor([0.3, 0.2, 0.1, 1.0])
    torch.testing.assert_close(to_camera(torch.tensor([[0.3, 0.2, 0.1]]), camera.viewmats)[0], column[:3])
    torch.testing.assert_close(camera.viewmats @ torch.tensor([1.0, 2.0, 3.0, 1.0]), torch.tensor([0, 0, 0, 1.0]))


def test_08_pixel_i_j_covers_row_i_and_column_j():
    camera = camera_at(0.0, 0.0, 2.0)
    point = (0.2, 0.3, 0.0)
    (x, y), _ = see(camera, *point)
    image = photograph(one_splat(point, scales=(0.004,) * 3), camera).alphas[0]
    row, column = divmod(image.argmax().item(), camera.width)
    assert (row, column) == (int(y), int(x))


def test_09_pixel_centres_are_at_a_half():
    assert pixel_centers(4, 4)[0, 0].tolist() == [0.5, 0.5]
    assert intrinsics(0.5, 33, 21)[:2, 2].tolist() == [16.5, 10.5]
    camera = camera_at(0.0, 0.0, 2.0)  # 33 pixels: the middle one's centre is the principal point
    image = photograph(one_splat((0.0, 0.0, 0.0)), camera).alphas[0]
    torch.testing.assert_close(image, image.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(image, image.flip(1), atol=1e-5, rtol=0)
    _, directions = camera_rays(camera)
    torch.testing.assert_close(directions[16, 16], torch.tensor([0.0, 0.0, -1.0]))


def test_10_quaternions_are_w_first_and_local_to_world():
    half = math.sqrt(0.5)
    about_z = torch.tensor([half, 0.0, 0.0, half])
    torch.testing.assert_close(
        quaternion_to_matrix(about_z) @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    )
    long = one_splat((0.0, 0.0, 0.0), scales=(0.2, 0.01, 0.01), quat=tuple(about_z.tolist()))
    image = photograph(long, camera_at(0.0, 0.0, 2.0)).alphas[0]
    assert (image > 0.1).any(dim=1).sum() > 3 * (image > 0.1).any(dim=0).sum()  # it stands upright


def test_11_colours_are_srgb_without_any_gamma():
    grey = one_splat((0.0, 0.0, 0.0), scales=(1.0,) * 3, opacity=1.0, color=(0.5, 0.5, 0.5))
    centre = photograph(grey, camera_at(0.0, 0.0, 2.0), background=(0.5, 0.5, 0.5)).colors[0, 16, 16]
    torch.testing.assert_close(centre, torch.full((3,), 0.5))
    assert to_bytes(centre[:, None, None])[0, 0].tolist() == [128, 128, 128]


def test_12_scales_are_deviations_and_opacities_are_shares():
    sigma = 0.1
    camera = camera_at(0.0, 0.0, 20.0, size=401)
    splat = one_splat((0.0, 0.0, 0.0), scales=(sigma,) * 3, opacity=0.8)
    image = photograph(splat, camera).alphas[0]
    pixels = camera.Ks[0, 0].item() / 20 * sigma  # of one deviation
    assert image[200, 200].item() == pytest.approx(0.8, abs=0.01)
    column = 200 + round(pixels)
    expected = 0.8 * math.exp(-0.5 * ((column - 200) / pixels) ** 2)
    assert image[200, column].item() == pytest.approx(expected, abs=0.02)


def test_13_azimuths_go_from_z_towards_x():
    front = camera_at(0.0, 0.0, 2.0)
    side = orbit(front, torch.zeros(3), torch.tensor([math.pi / 2]))
    torch.testing.assert_close(side.centers[0], torch.tensor([2.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(side.viewmats[0, 2, :3], torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_14_channels_come_last_only_from_the_renderer():
    splat, camera = one_splat((0.0, 0.0, 0.0)), camera_at(0.0, 0.0, 2.0)
    assert photograph(splat, camera).colors.shape == (1, 33, 33, 3)
    assert on_white(torch.zeros(4, 33, 33)).shape == (3, 33, 33)


def test_15_alpha_is_straight():
    pixel = torch.tensor([0.4, 0.6, 0.8, 0.5])[:, None, None]
    torch.testing.assert_close(on_white(pixel).flatten(), torch.tensor([0.7, 0.8, 0.9]))
    pictured = render_meshes([square_mesh(color=(1.0, 1.0, 1.0))], camera_batch(camera_at(0.0, 0.0, 3.0)))
    edge = (pictured.rgba[0, 3] > 0.2) & (pictured.rgba[0, 3] < 0.8)
    assert edge.any()
    inside = pictured.rgba[0, :3][:, pictured.rgba[0, 3] == 1]
    assert (pictured.rgba[0, :3][:, edge].mean(dim=1) > 0.8 * inside.mean(dim=1)).all()  # not darkened


def test_16_depth_is_along_the_axis():
    camera = camera_at(0.0, 0.0, 2.0)
    assert see(camera, 0.5, 0.0, 0.0)[1] == pytest.approx(2.0)  # its distance is more
    image = photograph(one_splat((0.4, 0.0, 0.0), scales=(0.03,) * 3), camera)
    assert image.depths[0][image.alphas[0] > 0.5].mean().item() == pytest.approx(2.0, abs=1e-3)


def test_17_faces_wind_counter_clockwise_from_outside(body):
    for vertices, faces in ((body[0].vertices, body[0].faces), square_tensors()):
        corners = vertices[faces]
        normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = (corners[:, 0] * normals).sum() / 6
        assert volume > 0.03 or (normals[:, 2] > 0).all()
    one_sided = square_mesh(two_sided=False)
    assert render_meshes([one_sided], camera_batch(camera_at(0.0, 0.0, 3.0))).rgba[0, 3].max() == 1
    assert render_meshes([one_sided], camera_batch(camera_at(0.0, 0.0, -3.0))).rgba[0, 3].max() == 0


def test_18_texture_coordinates_start_at_the_bottom_left():
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :4] = 255  # the top left of the picture
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    mesh = square_mesh(uvs=uvs, texture=texture, specular=0.0)
    picture = render_meshes([mesh], camera_batch(camera_at(0.0, 0.0, 3.0))).rgba[0, :3].mean(dim=0)
    assert picture[11, 11] > picture[11, 21] + 0.2
    assert picture[11, 11] > picture[21, 11] + 0.2


def test_19_part_maps_keep_0_for_the_background():
    mesh = square_mesh(parts=np.full(4, 15, np.uint8))
    parts = render_meshes([mesh], camera_batch(camera_at(0.0, 0.0, 3.0))).parts[0]
    assert parts[16, 16] == 16
    assert parts[0, 0] == 0


def test_20_the_canonical_crop_centres_the_person_at_a_fixed_scale(body):
    mask = np.zeros((300, 400), np.float32)
    mask[50:220, 100:160] = 1.0
    left, top, right, bottom = canonical_square(mask_box(mask))
    assert right - left == pytest.approx(bottom - top)
    assert 170 / (bottom - top) == pytest.approx(0.85)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((130.0, 135.0))
    assert math.radians(30) == pytest.approx(CROP_FOV)
    posed, model = body
    down = torch.tensor(MAX_LIFTED_PITCH)
    parameters = dict(model.neutral())
    parameters["translation"] = torch.tensor([0.0, 0.0, -4.0])  # the fit's own frame: the camera is the origin
    _, camera = world_frame(model, parameters, down, 64)
    assert camera.viewmats[0, 1].item() == pytest.approx(0.0, abs=1e-6)  # no roll
    assert camera.viewmats[2, 1].item() == pytest.approx(-math.sin(math.radians(35)), abs=1e-6)


def camera_batch(camera):
    return camera.map(lambda tensor: tensor[None])


def square_tensors():
    mesh = square_mesh()
    return torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces)
