from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat.config import AugmentConfig
from humansplat.data.augment import augment
from humansplat.data.dataset import PeoplePool
from humansplat.data.photo_noise import before_background, drawn_backgrounds, jpeg, reframe_rig, roughen
from humansplat.errors import UserError
from humansplat.geometry.projection import project

SIZE = 32  # of the toy people's pictures, see conftest.py
STILL = AugmentConfig(mirror=0.0, gain=0.0)


@pytest.fixture(scope="module")
def batch(tmp_path_factory, make_toy_person, toy_template):
    root = tmp_path_factory.mktemp("people")
    for seed in range(3):
        make_toy_person(root, f"p{seed}", seed)
    pool = PeoplePool(root, toy_template, capacity=3)
    pool.load()
    return pool.batch(torch.arange(3), torch.tensor([[4, 1], [2, 3], [5, 0]]), num_inputs=4)


def smooth_picture(size=(40, 52)):
    rows, columns = np.mgrid[: size[0], : size[1]] / 20
    waves = [np.sin(3 * rows + 2 * columns), np.cos(4 * columns), np.sin(5 * rows) * np.cos(columns)]
    return (127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def spots(batch, views=4):
    """Where the vertices lie in the given pictures."""
    vertices = batch.body.vertices[:, None].expand(-1, views, -1, -1)
    return project(vertices, batch.cameras.viewmats, batch.cameras.Ks)[0]


def test_points_stay_on_their_pixels_when_the_crop_moves(batch):
    scale, shift = torch.tensor([1.3, 0.8, 1.0]), torch.tensor([[0.05, -0.1], [0.1, 0.0], [0.125, 0.25]])
    moved = reframe_rig(batch, scale, shift)
    before, after = spots(batch), spots(moved)
    expected = (before - SIZE / 2) * scale[:, None, None, None] + SIZE * (0.5 + shift[:, None, None])
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=0)
    # The third moves by whole pixels: every colour is found again where the cameras say.
    torch.testing.assert_close(moved.images[2, :, 3, 8:, 4:], batch.images[2, :, 3, :-8, :-4], atol=1e-5, rtol=0)
    assert (moved.images[2, :, 3, :8] == 0).all()
    covered = moved.images[0, :, 3].flatten(1)
    columns, rows = after[0].floor().long().unbind(-1)
    inside = (columns >= 0) & (columns < SIZE) & (rows >= 0) & (rows < SIZE)
    hit = covered.gather(1, (rows * SIZE + columns).clamp(0, SIZE * SIZE - 1))
    assert (hit[inside] > 0.9).all()
    assert inside.sum() > 15
    assert torch.equal(moved.targets, batch.targets)
    assert torch.equal(moved.target_cameras.Ks, batch.target_cameras.Ks)


def test_reframing_by_nothing_changes_nothing_seen(batch):
    still = reframe_rig(batch, torch.ones(3), torch.zeros(3, 2))
    torch.testing.assert_close(still.images[:, :, 3], batch.images[:, :, 3], atol=1e-5, rtol=0)
    seen = batch.images[:, :, 3:] > 0
    torch.testing.assert_close(still.images * seen, batch.images * seen, atol=1e-4, rtol=0)
    torch.testing.assert_close(still.cameras.Ks, batch.cameras.Ks)


def test_background_colours_the_edge_and_keeps_the_mask(batch):
    soft = replace(batch, images=torch.cat([batch.images[:, :, :3], 0.5 * batch.images[:, :, 3:]], dim=2))
    backgrounds = torch.zeros(3, 3, SIZE, SIZE)
    backgrounds[:, 1] = 1.0
    changed = before_background(soft, backgrounds, torch.tensor([True, False, True]))
    assert torch.equal(changed.images[:, :, 3], soft.images[:, :, 3])
    assert torch.equal(changed.images[1], soft.images[1])
    alpha, green = soft.images[0, :, 3], soft.images[0, :, 1]
    torch.testing.assert_close(changed.images[0, :, 1], green * alpha + 1 - alpha)
    assert torch.equal(changed.targets, soft.targets)


def test_drawn_backgrounds_are_of_three_kinds(rng):
    drawn = drawn_backgrounds(60, (24, 24), rng)
    steps = (drawn[..., 1:] - drawn[..., :-1]).abs().amax(dim=(1, 2, 3))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    for low, high in ((-1, 1e-6), (1e-6, 0.3), (0.3, 1.1)):  # plain, gradient, grain
        assert 8 < ((steps > low) & (steps <= high)).sum() < 35


def test_backgrounds_come_from_a_folder(batch, tmp_path, rng):
    for number, color in enumerate(((200, 0, 0), (0, 0, 200))):
        Image.new("RGB", (50, 30), color).save(tmp_path / f"{number}.jpg", quality=95)
    config = replace(STILL, background=1.0, backgrounds=tmp_path)
    changed = roughen(batch, config, rng)
    empty = batch.images[:, 0, 3] == 0
    colors = (changed.images[:, 0, :3].movedim(1, -1)[empty] * 255).round()
    assert {tuple(color) for color in colors.tolist()} <= {
        (200, 0, 0),
        (199, 0, 0),
        (0, 0, 200),
        (0, 0, 199),
        (1, 0, 200),
    }
    for folder, complaint in ((tmp_path / "none", "is no folder"), (tmp_path / "empty", "holds no PNG")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=complaint):
            roughen(batch, replace(config, backgrounds=folder), rng)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"?")
    with pytest.raises(UserError, match="x.png cannot be read"):
        roughen(batch, replace(config, backgrounds=tmp_path / "broken"), rng)


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_jpeg_is_pillows(quality):
    pixels = smooth_picture()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).astype(float)
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    found = (jpeg(picture, torch.tensor([float(quality)]))[0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 0.6  # whole numbers in the one, fractions in the other
    assert np.abs(found - expected).max() <= 6
    assert np.abs(expected - pixels).mean() > 2 * np.abs(found - expected).mean() or quality == 95


def test_lower_quality_is_worse():
    picture = torch.from_numpy(smooth_picture()).permute(2, 0, 1)[None].float().expand(3, -1, -1, -1) / 255
    errors = (jpeg(picture, torch.tensor([15.0, 40.0, 90.0])) - picture).abs().mean(dim=(1, 2, 3))
    assert errors[0] > errors[1] > errors[2] > 0


def test_only_the_photograph_goes_through_jpeg(batch, rng):
    changed = roughen(batch, replace(STILL, jpeg=1.0, jpeg_quality=30), rng)
    assert torch.equal(changed.images[:, :, 3], batch.images[:, :, 3])
    assert torch.equal(changed.targets, batch.targets)
    seen = batch.images[:, :, 3:] == 1
    difference = ((changed.images - batch.images).abs() * seen)[:, :, :3].amax(dim=(2, 3, 4))
    assert (difference[:, 0] > 0).all()
    assert (difference[:, 1:] == 0).all()


def test_everything_together_follows_its_generator(batch, toy_template):
    config = AugmentConfig(crop_scale=0.1, crop_shift=0.05, background=0.5, jpeg=0.5)
    runs = [augment(batch, config, toy_template, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(runs[0].images, runs[1].images)
    assert not torch.equal(runs[0].images, runs[2].images)
    assert runs[0].images.min() >= 0
    assert runs[0].images.max() <= 1


def test_nothing_asked_for_draws_nothing(batch, rng):
    state = rng.get_state()
    assert roughen(batch, STILL, rng) is batch
    assert torch.equal(rng.get_state(), state)


def test_impossible_wishes_are_refused():
    for wish in (
        {"jpeg": 1.5},
        {"background": -0.1},
        {"crop_scale": 1.0},
        {"crop_shift": -0.1},
        {"jpeg_quality": 0},
        {"saturate": -1.0},
    ):
        with pytest.raises(UserError, match=f"augment.{next(iter(wish))}"):
            AugmentConfig(**wish)
