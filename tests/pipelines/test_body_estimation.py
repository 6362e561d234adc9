"""The lifter's looks at a capture, and the shipped lifter on the shipped photo."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from humansplat.body.landmarks import LANDMARK_NAMES, MIRRORED_LANDMARKS
from humansplat.body.markers import MAIN_JOINTS, MIRRORED_MARKERS
from humansplat.body.models import load_body_model
from humansplat.capture.capture import Capture, capture_person
from humansplat.capture.graph import graph_path
from humansplat.data.crops import Framing, framed_points
from humansplat.errors import UserError
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.body_estimation import (
    KNOWN_VISIBILITY,
    BodyEstimator,
    lifter_inputs,
    look_framing,
    mean_of,
    unframed,
    unmirrored,
)
from humansplat.pipelines.weights import shipped_lifter
from humansplat.structures import LiftedMarkers

NAMED = len(MIRRORED_MARKERS)
PHOTO = Path(__file__).parents[2] / "examples" / "person.png"


@pytest.fixture(scope="module")
def body():
    return load_body_model()


@pytest.fixture
def lifted(rng):
    """What some lifter says of three crops."""
    up = torch.nn.functional.normalize(torch.tensor([0.0, -1.0, 0.0]) + 0.2 * torch.randn(3, 3, generator=rng), dim=-1)
    return LiftedMarkers(
        points=torch.rand(3, 92, 3, generator=rng),
        point_scales=0.1 * torch.rand(3, 92, 2, generator=rng),
        phenotypes=torch.rand(3, 11, generator=rng),
        phenotype_scales=torch.rand(3, 11, generator=rng),
        up=up,
        up_scale=torch.rand(3, generator=rng),
    )


def same(one, other):
    for name, value in vars(one).items():
        torch.testing.assert_close(value, getattr(other, name), atol=1e-6, rtol=1e-5, equal_nan=True)


def test_framing_is_undone(lifted):
    middle = torch.tensor([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]])
    framing = Framing(
        scale=torch.tensor([1.0, 1.2, 0.8]), roll=torch.tensor([0.0, 0.3, -0.2]), source=middle, target=middle + 0.03
    )
    scale = framing.scale[:, None]
    framed = replace(
        lifted,
        points=torch.cat(
            [framed_points(lifted.points[..., :2], framing), lifted.points[..., 2:] * scale[..., None]], dim=-1
        ),
        point_scales=lifted.point_scales * scale[..., None],
        up=torch.cat([(framing.turn() @ lifted.up[:, :2, None])[..., 0], lifted.up[:, 2:]], dim=-1),
    )
    same(unframed(framed, framing), lifted)


def counterpart(name):
    """The same name of the other side."""
    for one, other in (("left", "right"), ("right", "left")):
        if name.startswith(one):
            return other + name.removeprefix(one)
    ends = {"mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
    return ends.get(name) or {"L": f"{name[:-1]}R", "R": f"{name[:-1]}L"}.get(name[-1] if "." in name else "", name)


def test_mirroring_is_undone_for_everything_that_has_a_counterpart(lifted):
    names = [*LANDMARK_NAMES, *MAIN_JOINTS]
    order = [names.index(counterpart(name)) for name in names]
    rest = list(range(NAMED, 92))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    mirrored = replace(
        lifted,
        points=(lifted.points * flip + torch.tensor([1.0, 0.0, 0.0]))[:, order + rest],
        point_scales=lifted.point_scales[:, order + rest],
        up=lifted.up * flip,
    )
    before = mirrored.points.clone()
    back = unmirrored(mirrored)
    torch.testing.assert_close(mirrored.points, before, atol=0, rtol=0)
    torch.testing.assert_close(back.points[:, :NAMED], lifted.points[:, :NAMED])
    torch.testing.assert_close(back.point_scales[:, :NAMED], lifted.point_scales[:, :NAMED])
    torch.testing.assert_close(back.up, lifted.up)
    assert back.points[:, NAMED:].isnan().all()
    assert back.point_scales[:, NAMED:].isnan().all()


def test_the_mean_leaves_out_what_is_not_a_number(lifted):
    mirrored = unmirrored(lifted)
    mean = mean_of(lifted, mirrored)
    torch.testing.assert_close(mean.points[NAMED:], lifted.points[:, NAMED:].mean(0))
    torch.testing.assert_close(mean.points[:NAMED], torch.cat([lifted.points, mirrored.points])[:, :NAMED].mean(0))
    assert mean.points.isfinite().all()
    assert mean.up.norm().item() == pytest.approx(1.0)
    assert mean.up[0].abs() < 1e-6  # the mirrored looks lean the other way
    assert mean.up_scale.shape == ()


def test_the_first_look_is_the_crop_itself_and_all_are_near_it(rng):
    framing = look_framing()
    places = torch.rand(1, 20, 2, generator=rng).expand(len(framing.scale), -1, -1)
    moved = framed_points(places, framing) - places
    torch.testing.assert_close(moved[0], torch.zeros(20, 2), atol=1e-6, rtol=0)
    assert moved.norm(dim=-1).max() < 0.06


@pytest.fixture
def capture(rng):
    """A picture that means nothing, with landmarks of all degrees of visibility."""
    return Capture(
        image=torch.rand(3, 48, 48, generator=rng),
        mask=(torch.rand(48, 48, generator=rng) > 0.5).float(),
        landmarks=48 * torch.rand(33, 2, generator=rng),
        visibility=torch.linspace(0, 1, 33),
        world_landmarks=torch.zeros(33, 3),
        crop_to_photo=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        score=1.0,
    )


def test_inputs_are_before_white_in_fractions_and_at_the_lifters_size(capture):
    picture, landmarks = lifter_inputs(capture, 48)
    assert (picture[0, :3, capture.mask == 0] == 1).all()
    torch.testing.assert_close(picture[0, 3], capture.mask)
    torch.testing.assert_close(landmarks[0, :, :2], capture.landmarks / 48)
    assert landmarks[0, :, 2].tolist() == (capture.visibility >= KNOWN_VISIBILITY).float().tolist()
    larger, same_places = lifter_inputs(capture, 64)
    assert larger.shape == (1, 4, 64, 64)
    torch.testing.assert_close(larger.mean(dim=(2, 3)), picture.mean(dim=(2, 3)), atol=0.02, rtol=0)
    torch.testing.assert_close(same_places, landmarks)


@pytest.fixture
def tiny_estimator(body, tmp_path):
    sizes = {"fine_width": 12, "width": 16, "num_heads": 2, "num_fine_blocks": 1, "num_blocks": 1, "num_rounds": 1}
    MarkerLifter(num_markers=92, num_phenotypes=11, image_size=64, **sizes).save_pretrained(tmp_path)
    return BodyEstimator(body, tmp_path)


def test_any_lifter_gives_one_set_of_markers(tiny_estimator, capture):
    said = tiny_estimator.lift(capture)
    assert said.points.shape == (92, 3)
    assert all(value.isfinite().all() for value in vars(said).values())
    assert not said.points.requires_grad
    # Untrained it sees every marker in the middle of every look.
    assert (said.points[:, :2] - 0.5).abs().max() < 0.2


def test_half_of_the_looks_are_the_others_mirrored(tiny_estimator, capture):
    shown = []
    tiny_estimator.lifter.register_forward_pre_hook(lambda _, inputs: shown.extend(inputs))
    tiny_estimator.lift(capture)
    images, landmarks = shown
    count = len(look_framing().scale)
    assert images.shape == (2 * count, 4, 64, 64)
    torch.testing.assert_close(images[count:], images[:count].flip(-1))
    for index, name in enumerate(LANDMARK_NAMES):
        there, here = landmarks[:count, index], landmarks[count:, LANDMARK_NAMES.index(counterpart(name))]
        torch.testing.assert_close(here, there * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([1.0, 0.0, 0.0]))
    assert (landmarks[:, :, 2] != landmarks[:, list(MIRRORED_LANDMARKS), 2]).any()


def test_a_lifter_that_is_not_there_is_missed_by_its_folder(body, tmp_path):
    with pytest.raises(UserError, match=r"nowhere lacks config\.json"):
        BodyEstimator(body, tmp_path / "nowhere")
    with pytest.raises(UserError, match="no lifter for the body model 'smplx'"):
        shipped_lifter("smplx")


@pytest.fixture(scope="module")
def seen(body):
    """The shipped photo, captured once, and what the shipped lifter says of it."""
    if not PHOTO.is_file() or not graph_path().is_file():
        pytest.skip("the example photo or the pose graph is missing; reconstructing any photo fetches the latter")
    capture = capture_person(PHOTO, size=256)
    estimator = BodyEstimator(body)
    return capture, estimator, estimator.lift(capture)


@pytest.mark.weights
def test_markers_lie_where_the_detector_saw_the_landmarks(seen):
    capture, _, said = seen
    apart = (said.points[:33, :2] - capture.landmarks / 256).norm(dim=-1)
    assert apart.mean() < 0.02
    assert apart.max() < 0.06
    columns, rows = (256 * said.points[:, :2]).long().clamp(0, 255).unbind(-1)
    assert (capture.mask[rows, columns] > 0.5).float().mean() > 0.9


@pytest.mark.weights
def test_the_shipped_photos_camera_is_about_level(seen):
    _, _, said = seen
    assert math.degrees(math.acos(-said.up[1].clamp(-1, 1))) < 12.0


@pytest.mark.weights
def test_the_shipped_lifter_reads_the_picture_and_not_only_the_landmarks(seen):
    capture, estimator, said = seen
    blind = estimator.lift(replace(capture, visibility=torch.zeros(33)))
    assert (blind.points - said.points)[:, :2].norm(dim=-1).mean() < 0.02
    assert (blind.points - said.points)[:, 2].abs().mean() < 0.05


@pytest.mark.weights
def test_a_mirrored_capture_gives_mirrored_markers(seen):
    capture, estimator, said = seen
    order = list(MIRRORED_LANDMARKS)
    mirrored = replace(
        capture,
        image=capture.image.flip(-1),
        mask=capture.mask.flip(-1),
        landmarks=(capture.landmarks * torch.tensor([-1.0, 1.0]) + torch.tensor([256.0, 0.0]))[order],
        visibility=capture.visibility[order],
    )
    again = unmirrored(estimator.lift(mirrored).map(lambda tensor: tensor[None]))[0]
    difference = (again.points - said.points)[:NAMED].abs()
    assert difference[:, :2].max() < 0.005
    assert difference[:, 2].max() < 0.02
    assert (again.up - said.up).norm() < math.radians(2.0)
