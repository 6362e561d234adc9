import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from humansplat.capture import capture_person
from humansplat.capture.landmarks import LANDMARK_NAMES, find_people
from humansplat.capture.window import apply
from humansplat.errors import UserError
from tests.capture.conftest import JEANS, SHIRT, draw_person

WHOLE = (
    "figurine-basketball.jpg",
    "man-jumping.jpg",
    "man-long-coat.png",
    "man-white-background.png",
    "woman-hat-skirt.png",
    "woman-white-skirt.png",
)


@pytest.fixture(scope="module")
def capture(person_picture, graph):
    return capture_person(person_picture, graph=graph)


def landmark(capture, name: str) -> torch.Tensor:
    return capture.landmarks[LANDMARK_NAMES.index(name)]


def box_of(mask: torch.Tensor) -> list[float]:
    rows, columns = torch.nonzero(mask >= 0.5, as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def test_the_person_is_centred_at_the_canonical_scale(capture):
    x0, y0, x1, y1 = box_of(capture.mask)
    assert max(x1 - x0, y1 - y0) / 256 == pytest.approx(0.85, abs=0.01)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((128, 128), abs=1.5)


def test_the_mask_is_the_drawn_person(capture, person_picture):
    drawn = np.abs(np.asarray(person_picture).astype(int) - (235, 238, 240)).sum(axis=-1) > 40
    y, x = np.mgrid[0:256, 0:256] + 0.5
    where = apply(capture.crop_to_photo.double().numpy(), np.stack([x.ravel(), y.ravel()], axis=-1)).astype(int)
    inside = ((where >= 0) & (where < [400, 600])).all(axis=1)
    expected = np.zeros(256 * 256, dtype=bool)
    expected[inside] = drawn[where[inside, 1], where[inside, 0]]
    found = capture.mask.numpy().ravel() > 0.5
    assert (found & expected).sum() / (found | expected).sum() > 0.95


def test_landmarks_lie_where_they_were_drawn(capture):
    to_photo = capture.crop_to_photo
    for name, point in {"nose": (200, 82), "left_knee": (236, 406), "right_wrist": (106, 294)}.items():
        found = to_photo[:, :2] @ landmark(capture, name) + to_photo[:, 2]
        assert (found - torch.tensor(point)).norm() < 25, name
    assert capture.score > 0.9
    assert capture.warnings == ()


def test_world_landmarks_are_metres_in_camera_axes(capture):
    world = dict(zip(LANDMARK_NAMES, capture.world_landmarks, strict=True))
    assert world["nose"][1] < world["left_hip"][1] < world["left_ankle"][1]  # y points down
    assert world["right_shoulder"][0] < world["left_shoulder"][0]  # the person faces the camera
    assert world["nose"][2] < world["left_ear"][2]  # z points away
    assert 1.0 < world["left_heel"][1] - world["nose"][1] < 2.0


def test_colours_at_the_edge_are_the_person_s_own(capture):
    """The background is light and the clothes are dark: nothing in between may be left."""
    edge = (capture.mask > 0.2) & (capture.mask < 0.9)
    below = torch.arange(256)[:, None] > 60  # skin is light
    above = torch.arange(256)[:, None] < 105
    colors = capture.image[:, edge & below & above].T * 255.0
    distance = torch.cdist(colors, torch.tensor([SHIRT, JEANS], dtype=torch.float32)).min(dim=1).values
    assert distance.median() < 15
    assert (capture.image[:, capture.mask == 0] == 1.0).all()
    assert capture.composited(0.0)[:, capture.mask == 0].max() == 0.0


@pytest.mark.parametrize("size", [128, 512])
def test_other_sizes_show_the_same(capture, person_picture, graph, size):
    other = capture_person(person_picture, size=size, graph=graph)
    assert other.image.shape == (3, size, size)
    torch.testing.assert_close(other.landmarks * (256 / size), capture.landmarks, atol=2.0, rtol=0)


def test_a_mask_wins_over_alpha_and_alpha_over_the_graph(person_picture, graph):
    wanted = np.zeros((600, 400), np.float32)
    wanted[20:560, 90:310] = 1.0
    by_mask = capture_person(person_picture, wanted, graph=graph)
    cutout = person_picture.copy()
    cutout.putalpha(Image.fromarray((wanted * 255).astype(np.uint8)))
    by_alpha = capture_person(cutout, graph=graph)
    for capture in (by_mask, by_alpha):
        x0, y0, x1, y1 = box_of(capture.mask)
        assert capture.mask[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 0.99
        assert (y1 - y0) / (x1 - x0) == pytest.approx(540 / 220, rel=0.02)
    square = np.zeros((600, 400), np.float32)
    square[20:580, 10:390] = 1.0
    assert capture_person(cutout, square, graph=graph).mask.sum() > by_alpha.mask.sum()


def test_hidden_colours_of_a_cutout_do_not_show(person_picture, graph):
    pixels = np.asarray(person_picture).copy()
    drawn = np.abs(pixels.astype(int) - (235, 238, 240)).sum(axis=-1) > 40
    pixels[~drawn] = (0, 255, 0)
    capture = capture_person(np.dstack([pixels, drawn * np.uint8(255)]), graph=graph)
    red, green, blue = capture.image[:, capture.mask > 0.05]
    assert ((green - torch.maximum(red, blue)) < 0.1).all()


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((0, 0, 400, 480), "feet"),
        ((0, 0, 400, 350), "legs"),
        ((0, 65, 400, 600), "head"),
        ((130, 0, 400, 600), "right arm|right hand"),
        ((0, 0, 285, 600), "left arm|left hand"),
    ],
)
def test_a_person_cut_off_is_refused_and_the_part_named(person_picture, graph, box, part):
    with pytest.raises(UserError, match=f"cut off: ({part}) outside the picture"):
        capture_person(person_picture.crop(box), graph=graph)


def test_nobody_is_refused(graph):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    with pytest.raises(UserError, match="nobody"):
        capture_person(noise, graph=graph)


def test_of_two_people_the_larger_is_taken_with_a_warning(graph):
    pair = draw_person(800, 600, scale=0.75, x=580, y=150)
    pair.paste(draw_person(400, 600, scale=1.0), (0, 0))
    capture = capture_person(pair, graph=graph)
    assert len(capture.warnings) == 1
    assert "2 people" in capture.warnings[0]
    nose = capture.crop_to_photo[:, :2] @ landmark(capture, "nose") + capture.crop_to_photo[:, 2]
    assert nose[0] == pytest.approx(200, abs=20)


def test_a_small_person_in_a_large_picture_is_found(graph):
    large = draw_person(1200, 800, scale=0.45, x=900, y=400)
    (person,) = find_people(np.asarray(large), graph)
    assert person.landmarks[0] == pytest.approx((900, 421), abs=12)


def test_a_bag_is_part_of_the_person_when_asked_for(person_picture, graph):
    picture = person_picture.copy()
    ImageDraw.Draw(picture).rectangle([55, 300, 125, 400], fill=(190, 60, 40))
    bare, carrying = (capture_person(picture, carried=carried, graph=graph) for carried in (False, True))
    for capture, seen in ((bare, False), (carrying, True)):
        linear, offset = capture.crop_to_photo[:, :2], capture.crop_to_photo[:, 2]
        x, y = torch.linalg.solve(linear, torch.tensor([80.0, 370.0]) - offset).int().tolist()
        assert (capture.mask[y, x] > 0.9) == seen


def test_a_tiny_person_is_warned_about(person_picture, graph):
    small = Image.new("RGB", (300, 300), (235, 238, 240))
    small.paste(person_picture.resize((60, 90), Image.Resampling.BICUBIC), (120, 100))
    (warning,) = capture_person(small, graph=graph).warnings
    assert "px tall" in warning


def test_a_matting_package_that_is_missing_is_named(person_picture, graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(UserError, match="pip install 'rembg"):
        capture_person(person_picture, matting="rembg", graph=graph)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_people_of_real_photos_pass(photos, graph, name):
    capture = capture_person(photos / name, graph=graph)
    assert capture.score > 0.99
    assert capture.warnings == ()
    assert 0.07 < capture.mask.mean() < 0.25


def test_the_man_cut_at_the_waist_is_refused(photos, graph):
    with pytest.raises(UserError, match="legs outside the picture"):
        capture_person(photos / "man-cut-at-waist.jpg", graph=graph)
