import itertools

import pytest
import torch
from torch.nn.functional import grid_sample

from humansplat.body.landmarks import MIRRORED_LANDMARKS, landmark_points
from humansplat.body.markers import ROOT_MARKER
from humansplat.config import AugmentConfig, DataConfig, LifterConfig, MarkerLifterConfig, TrainConfig
from humansplat.data.crops import canonical_framing, inside
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.weights import load_module
from humansplat.training.lifter_task import LIMB_LANDMARKS, LifterTask, draw_dots, misplaced, with_photograph

SIZE = 64
NUM_DRAWS = 4000


def make_task(folder, mirror=0.5):
    model = MarkerLifterConfig(fine_width=12, width=16, num_heads=2, num_fine_blocks=1, num_blocks=1, num_rounds=2)
    data = DataConfig(image_size=SIZE, augment=AugmentConfig(mirror=mirror))
    return LifterTask(
        TrainConfig(task="lifter", output_dir=folder, data=data, lifter=LifterConfig(model=model, views_per_person=3))
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("run"))


@pytest.fixture
def module(task):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return task.build_module()


@pytest.fixture(scope="module")
def clean(task, pool):
    """All views of both people in their canonical crops."""
    batch = pool.batch(torch.arange(2), torch.arange(pool.num_views).expand(2, -1))
    pictures, cameras = batch.targets.flatten(0, 1), batch.target_cameras.map(lambda tensor: tensor.flatten(0, 1))
    return task._batch(batch, pictures, cameras, canonical_framing(pictures[:, 3])), batch


def covered(crops, points):
    """The masks at points in crop units."""
    return grid_sample(crops[:, 3:], 2 * points[:, None, :, :2] - 1, align_corners=False)[:, 0, 0]


def total(losses):
    return sum(value for name, value in losses.items() if not name.startswith("_"))


def test_markers_lie_on_the_person_in_the_picture(clean):
    seen, _ = clean
    assert seen.images.shape == (14, 4, SIZE, SIZE)
    assert seen.usable.all()
    assert (covered(seen.images, seen.points) > 0.3).float().mean() > 0.95
    assert (seen.points[..., :2] - seen.landmarks.new_tensor([0.5, 0.5])).abs().max() < 0.46
    torch.testing.assert_close(seen.points[:, ROOT_MARKER, 2], torch.zeros(14))
    assert (seen.points[:, :33, :2] - seen.landmarks[..., :2]).norm(dim=-1).mean() < 0.02
    torch.testing.assert_close(seen.up, torch.tensor([[0.0, -1.0, 0.0]]).expand(14, -1), atol=1e-5, rtol=0)


def test_crop_units_times_metres_are_the_bodys_lengths_from_every_side(task, clean):
    seen, batch = clean
    markers = landmark_points(batch.body, task.markers)
    near_axis = [0, ROOT_MARKER, ROOT_MARKER + 1, ROOT_MARKER + 4]  # where perspective does little
    for one, other in itertools.combinations(near_axis, 2):
        true = (markers[:, one] - markers[:, other]).norm(dim=-1).repeat_interleave(7)
        found = (seen.points[:, one] - seen.points[:, other]).norm(dim=-1) * seen.metres
        torch.testing.assert_close(found, true, atol=0.01, rtol=0.06)


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_drawn_crops_fit_their_markers_mirrored_or_not(tmp_path, pool, mirror):
    drawn = make_task(tmp_path, mirror).sample(pool, 4, torch.Generator().manual_seed(3))
    assert drawn.images.shape == (16, 4, SIZE, SIZE)  # the photograph and three views of each
    assert inside(drawn.points).all()
    assert (covered(drawn.images, drawn.points) > 0.3).float().mean() > 0.85
    # The person's left hip is to the right of the right one where the trunk faces the camera.
    across = drawn.points[:, 23, 0] - drawn.points[:, 24, 0]
    nose_towards = drawn.points[:, ROOT_MARKER, 2] - drawn.points[:, 0, 2]
    facing = nose_towards.abs() > 0.02
    assert facing.sum() >= 4
    assert ((across > 0) == (nose_towards > 0))[facing].all()


def test_the_photograph_comes_before_the_other_views(pool):
    batch = pool.sample(2, 3, torch.Generator().manual_seed(0), augment=AugmentConfig())
    views, cameras = with_photograph(batch)
    torch.testing.assert_close(views[[0, 4]], batch.images[:, 0])
    torch.testing.assert_close(views[5:8], batch.targets[1])
    torch.testing.assert_close(cameras.viewmats[4], batch.cameras.viewmats[1, 0])
    torch.testing.assert_close(cameras.Ks[1:4], batch.target_cameras.Ks[0])


def test_a_batch_is_learned(task, pool, module):
    generator = torch.Generator().manual_seed(0)
    batch = task.sample(pool, 2, generator)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    history = []
    for step in range(60):
        losses = task.training_loss(module, batch, generator, step)
        assert all(value.isfinite() for value in losses.values())
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    for name in ("markers", "absolute", "shape", "up"):
        assert history[-1][name] < history[0][name], name
    assert history[-1]["_across_mm"] < 0.7 * history[0]["_across_mm"]
    assert history[-1]["_depth_mm"] < 0.8 * history[0]["_depth_mm"]


def test_people_who_are_cut_do_not_count(task, pool, module):
    generator = torch.Generator().manual_seed(0)
    batch = task.sample(pool, 2, generator)
    cut = torch.zeros(8, dtype=torch.bool)
    cut[3] = True
    values = vars(batch) | {"usable": ~cut}
    spoilt = values | {"points": torch.where(cut[:, None, None], 9.0, batch.points)}
    one, other = (task.training_loss(module, type(batch)(**each), generator, 0) for each in (values, spoilt))
    torch.testing.assert_close(total(one), total(other))
    nobody = task.training_loss(module, type(batch)(**(values | {"usable": cut & False})), generator, 0)
    assert total(nobody) == 0


@torch.no_grad()
def test_validation_measures_what_the_module_says(task, pool, clean):
    seen, _ = clean

    class Knowing(torch.nn.Module):
        """Says the truth but for 10 mm in depth."""

        def __init__(self, said):
            super().__init__()
            self.weight, self.said = torch.nn.Parameter(torch.zeros(1)), said

        def forward(self, images, landmarks):
            return self.said

    said = task.build_module()(seen.images, seen.landmarks)
    points = seen.points.clone()
    points[..., 2] += 0.01 / seen.metres[:, None]
    knowing = Knowing(type(said)(**(vars(said) | {"points": points, "up": seen.up, "phenotypes": seen.phenotypes})))
    figures = task.validate(knowing, pool)
    assert set(figures) == set(task.figures)
    assert figures["accuracy"] == pytest.approx(-figures["error_mm"], abs=1e-3)
    for side in ("", "all_"):
        assert figures[f"{side}error_mm"] == pytest.approx(10.0, abs=1e-2)
        assert figures[f"{side}depth_mm"] == pytest.approx(10.0, abs=1e-2)
        assert figures[f"{side}across_mm"] == pytest.approx(0.0, abs=1e-2)
        assert figures[f"{side}up_degrees"] == figures[f"{side}shape"] == pytest.approx(0.0, abs=1e-3)


@torch.no_grad()
def test_it_is_drawn_and_saved(task, module, clean, tmp_path):
    seen, _ = clean
    sheet = task.pictures(module, seen)
    assert sheet.shape == (3, 2 * SIZE, 8 * SIZE)
    assert sheet.isfinite().all()
    task.save_pretrained(module, tmp_path)
    assert load_module(MarkerLifter, tmp_path).state_dict().keys() == module.state_dict().keys()


def test_dots_are_three_pixels_wide_and_stay_in_the_picture():
    images = torch.zeros(1, 3, 16, 16)
    draw_dots(images, torch.tensor([[[0.5, 0.25]]]), (1.0, 0.5, 0.0))
    assert images[0, 0, 3:6, 7:10].sum() == images[0, 0].sum() == 9
    draw_dots(images, torch.tensor([[[-3.0, 4.0]]]), (1.0, 0.5, 0.0))
    assert images[0, 0, 13:, :3].sum() == 9


@pytest.fixture(scope="module")
def truth():
    """Landmarks a unit apart each, so that it stays clear which went where."""
    places = torch.arange(33.0)[:, None].expand(-1, 2)
    return torch.cat([places, torch.ones(33, 1)], dim=-1).expand(NUM_DRAWS, -1, -1)


@pytest.fixture(scope="module")
def found(truth):
    return misplaced(truth, torch.Generator().manual_seed(0))


def test_every_place_is_still_there(found):
    source = found[..., 0].round().long()
    torch.testing.assert_close(source.sort(dim=1).values, torch.arange(33).expand(NUM_DRAWS, -1))


def test_a_landmark_is_its_own_or_its_counterpart(found):
    source, own, other = found[..., 0].round().long(), torch.arange(33), torch.tensor(MIRRORED_LANDMARKS)
    assert ((source == own) | (source == other)).all()
    paired = own != other
    exchanged = (source != own)[:, paired].float().mean().item()
    assert exchanged == pytest.approx(1 - 0.99 * 0.975, abs=0.008)
    for limb in LIMB_LANDMARKS:
        members = [index for index in limb if MIRRORED_LANDMARKS[index] != index]
        together = (source != own)[:, members]
        assert (together.all(dim=1) == together.any(dim=1)).all()
    arms = (source != own)[:, [11, 12]]
    assert (arms[:, 0] == arms[:, 1]).all()


def test_landmarks_are_lost_as_often_as_promised(found):
    known = found[..., 2]
    assert set(known.unique().tolist()) == {0.0, 1.0}
    assert 1 - known.mean().item() == pytest.approx(1 - 0.96 * 0.96 * 0.98, abs=0.008)
    assert (known.sum(dim=1) == 0).float().mean().item() == pytest.approx(0.02, abs=0.008)


def test_what_was_not_known_stays_so(truth):
    unknown = torch.cat([truth[..., :2], torch.zeros_like(truth[..., 2:])], dim=-1)
    assert not misplaced(unknown, torch.Generator().manual_seed(0))[..., 2].any()


def test_limbs_are_off_together(found):
    error = found[..., :2] - found[..., :2].round()
    stds = error.std(dim=0).mean(dim=-1)
    assert (stds > 0.008).all()
    assert (stds < 0.05).all()
    arm, leg = error[:, [13, 15], 0], error[:, [25, 27], 0]
    assert torch.corrcoef(arm.T)[0, 1] > 0.3
    assert torch.corrcoef(torch.stack([arm[:, 0], leg[:, 0]]))[0, 1].abs() < 0.15


def test_it_follows_the_generator(truth, found):
    again = misplaced(truth, torch.Generator().manual_seed(0))
    torch.testing.assert_close(again, found, atol=0, rtol=0)
