import math

import pytest
import torch

from humansplat.errors import UserError
from humansplat.models.lifter import LOG_SCALE_RANGE, START_LOG_SCALE, MarkerLifter
from humansplat.pipelines.weights import load_module

SIZES = {"num_markers": 5, "num_landmarks": 33, "num_phenotypes": 3, "image_size": 64}


def make_lifter(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = {"fine_width": 12, "width": 16, "num_heads": 2, "num_fine_blocks": 1, "num_blocks": 1, "num_rounds": 2}
        return MarkerLifter(**SIZES, **(tiny | changes))


@pytest.fixture
def lifter():
    """Not as it is made, where many weights are zero, but as if it had learned something."""
    network = make_lifter()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.fixture
def crop(rng):
    landmarks = torch.rand(2, 33, 3, generator=rng)
    landmarks[..., 2] = (landmarks[..., 2] > 0.3).float()
    return torch.rand(2, 4, 64, 64, generator=rng), landmarks


def fields(said):
    return (said.points, said.point_scales, said.phenotypes, said.phenotype_scales, said.up, said.up_scale)


@torch.no_grad()
def test_what_is_said_has_its_shape_and_range(lifter, crop):
    said = lifter(*crop)
    shapes = [tuple(value.shape) for value in fields(said)]
    assert shapes == [(2, 5, 3), (2, 5, 2), (2, 3), (2, 3), (2, 3), (2,)]
    assert (said.points[..., :2] > 0).all()
    assert (said.points[..., :2] < 1).all()
    assert (said.phenotypes > 0).all()
    assert (said.phenotypes < 1).all()
    torch.testing.assert_close(said.up.norm(dim=-1), torch.ones(2))
    low, high = (math.exp(bound) for bound in LOG_SCALE_RANGE)
    for scales in (said.point_scales, said.phenotype_scales, said.up_scale):
        assert (scales >= low * 0.999).all()
        assert (scales <= high * 1.001).all()


@torch.no_grad()
def test_untrained_it_says_upright_average_and_unsure(crop):
    said = make_lifter()(*crop)
    torch.testing.assert_close(said.up, torch.tensor([[0.0, -1.0, 0.0]]).expand(2, -1))
    torch.testing.assert_close(said.phenotypes, torch.full((2, 3), 0.5))
    torch.testing.assert_close(said.up_scale, torch.full((2,), math.exp(START_LOG_SCALE)))


@torch.no_grad()
def test_a_landmark_that_is_not_known_has_no_influence_wherever_it_is(lifter, crop):
    images, landmarks = crop
    moved = landmarks.clone()
    unknown = landmarks[..., 2] == 0
    moved[unknown] = torch.tensor([7.0, -3.0, 0.0])
    for one, other in zip(fields(lifter(images, landmarks)), fields(lifter(images, moved)), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    moved = landmarks.clone()
    moved[~unknown] += torch.tensor([0.1, 0.0, 0.0])
    assert (lifter(images, moved).points - lifter(images, landmarks).points).abs().max() > 1e-4


@torch.no_grad()
def test_the_spot_of_a_landmark_lies_where_it_is(lifter):
    landmarks = torch.zeros(1, 33, 3)
    landmarks[0, 0] = torch.tensor([0.8125 - 0.5, 0.3125 - 0.5, 1.0])  # from the middle, as the network keeps them
    blobs = lifter._blobs(landmarks)
    assert blobs[0, 0].argmax() == 2 * 8 + 6  # row 2, column 6 of 8 x 8 cells
    assert blobs[0, 0].max() == pytest.approx(1.0)
    assert blobs[0, 1:].abs().max() == 0


@torch.no_grad()
def test_a_marker_is_the_mean_under_its_heatmap(lifter):
    maps = torch.zeros(1, 4, 5, 64)
    maps[0, 0, 2, 3 * 8 + 5] = 60.0
    maps[0, 1, 2, 3 * 8 + 5] = 2.0
    points, scales = lifter._markers(maps)
    torch.testing.assert_close(points[0, 2], torch.tensor([5.5 / 8, 3.5 / 8, 0.2]))
    torch.testing.assert_close(points[0, 0], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(scales, torch.full_like(scales, math.exp(START_LOG_SCALE)))


def test_every_weight_learns(lifter, crop):
    said = lifter(*crop)
    sum((value * torch.linspace(1, 2, value.numel()).view_as(value)).sum() for value in fields(said)).backward()
    still = [name for name, weight in lifter.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_more_rounds_use_the_same_weights_to_say_something_else(lifter, crop):
    longer = make_lifter(num_rounds=4).eval()
    longer.load_state_dict(lifter.state_dict(), strict=True)
    with torch.no_grad():
        assert (longer(*crop).points - lifter(*crop).points).abs().max() > 1e-5


@torch.no_grad()
def test_it_is_saved_and_loaded_whole(lifter, crop, tmp_path):
    lifter.save_pretrained(tmp_path)
    again = load_module(MarkerLifter, tmp_path)
    for one, other in zip(fields(lifter(*crop)), fields(again(*crop)), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    make_lifter(num_blocks=2).save_config(tmp_path)
    with pytest.raises(UserError, match=r"missing: blocks\.1\."):
        load_module(MarkerLifter, tmp_path)
