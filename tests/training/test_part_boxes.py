"""Boxes around parts, the choice among them, and crops."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from humansplat.body.parts import PART_NAMES
from humansplat.geometry.projection import intrinsics, project
from humansplat.structures import Cameras
from humansplat.training.part_boxes import (
    NUM_REGIONS,
    REGIONS,
    as_enlarged,
    choose,
    find_regions,
    region_weights,
    resample,
    zoomed,
)


class NothingWaits(TorchDispatchMode):
    """Refuses what makes a GPU's caller wait: values on the host, and shapes that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, name
        if name.startswith("index"):
            indices = args[1] if isinstance(args[1], list | tuple) else []
            assert all(index is None or index.dtype != torch.bool for index in indices), "a boolean index"
        return func(*args, **(kwargs or {}))


def label(name: str) -> int:
    return PART_NAMES.index(name) + 1


def region(name: str) -> int:
    return next(place for place, names in enumerate(REGIONS) if name in names)


@pytest.fixture
def part_map() -> torch.Tensor:
    """A head of 4 x 6 pixels, a palm with fingers below it, three pixels of a neck, and a foot in the corner."""
    pixels = torch.zeros(32, 32, dtype=torch.long)
    pixels[4:10, 12:16] = label("head")
    pixels[20:22, 5:9] = label("leftHand")
    pixels[22:26, 6:8] = label("leftHandIndex1")
    pixels[11, 12:15] = label("neck")
    pixels[28:32, 28:32] = label("leftFoot")
    return pixels


def test_boxes_lie_around_what_is_seen(part_map):
    boxes = find_regions(part_map, region_weights(), 64, margin=0.25, min_pixels=4)
    assert boxes.weights.shape == (NUM_REGIONS,)
    assert {REGIONS[place][0] for place in boxes.weights.nonzero()[:, 0].tolist()} == {"head", "leftHand", "leftFoot"}
    head, hand, foot = (region(name) for name in ("head", "leftHandIndex1", "leftFoot"))
    assert boxes.weights[[head, hand, foot]].tolist() == [2, 2 + 2, 1]  # palm and fingers share a crop
    assert boxes.sides[[head, hand, foot]].tolist() == [2 * 6 * 1.5, 2 * 6 * 1.5, 2 * 4 * 1.5]
    assert boxes.corners[head].tolist() == [2 * 14 - 9, 2 * 7 - 9]
    assert boxes.corners[hand].tolist() == [2 * 7 - 9, 2 * 23 - 9]
    assert boxes.corners[foot].tolist() == [64 - 12, 64 - 12]  # moved into the picture
    alone = find_regions(part_map * (part_map != label("leftHand")), region_weights(), 64, margin=0.25, min_pixels=4)
    assert alone.weights[hand] == 2
    assert alone.sides[hand] == 2 * 4 * 1.5


def test_nothing_waits_for_values(part_map, rng):
    cameras = Cameras(viewmats=torch.eye(4).expand(2, 5, 4, 4), Ks=torch.ones(2, 5, 3, 3), width=64, height=64)
    pictures, members = torch.rand(2, 5, 3, 64, 64, generator=rng), region_weights()
    with NothingWaits():
        boxes = find_regions(part_map.expand(2, 3, 32, 32), members, 64, margin=0.25, min_pixels=4)
        choose(boxes.weights.flatten(1), 5, rng)
        corners, sides = boxes.corners.flatten(1, 2)[:, :5], boxes.sides.flatten(1)[:, :5]
        zoomed(cameras, corners, sides, 16)
        as_enlarged(resample(pictures, corners, sides, 16), corners, sides, 64)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            bool(sides.sum() > 0)
        with pytest.raises(AssertionError, match="nonzero|boolean"):
            sides[sides > 0]


@pytest.mark.parametrize("count", [2, 5, 6])
def test_the_chosen_stand_for_all(rng, count):
    weights = torch.tensor([2.0, 0.0, 1.0, 4.0, 0.0, 1.0])
    places, chosen = choose(weights.expand(20_000, -1), count, rng)
    assert places.shape == chosen.shape == (20_000, count)
    totals = torch.zeros(20_000, 6).scatter_add(1, places, chosen)
    torch.testing.assert_close(totals.mean(dim=0), weights, rtol=0.05, atol=0)
    assert ((totals > 0).sum(dim=1) == min(count, 4)).all()  # none twice, and what weighs something first


def test_crops_are_exact(rng):
    picture = torch.rand(3, 64, 64, generator=rng)

    def crop(left: float, top: float, side: float, resolution: int) -> torch.Tensor:
        return resample(picture, torch.tensor([left, top]).float(), torch.tensor(float(side)), resolution)

    torch.testing.assert_close(crop(5, 7, 16, 16), picture[:, 7:23, 5:21])
    torch.testing.assert_close(crop(3, 8, 48, 16), F.avg_pool2d(picture[:, 8:56, 3:51], 3))
    enlarged = F.interpolate(picture[None], size=192, mode="bilinear")[0]
    torch.testing.assert_close(crop(40, 0, 24, 72), enlarged[:, :72, 120:])  # at the edges of the picture, too
    torch.testing.assert_close(crop(3.3, 8.7, 20.5, 16).mean(), picture[:, 9:29, 3:24].mean(), rtol=0, atol=0.03)


def test_a_zoomed_camera_sees_the_box(rng):
    camera = Cameras(viewmats=torch.eye(4)[None], Ks=intrinsics(math.radians(40), 64, 64)[None], width=64, height=64)
    points = torch.rand(1, 20, 3, generator=rng) + torch.tensor([-0.5, -0.5, 2.0])
    pixels, depth = project(points, camera.viewmats, camera.Ks)
    near = zoomed(camera, torch.tensor([[10.0, 20.0]]), torch.tensor([16.0]), 48)
    assert (near.width, near.height) == (48, 48)
    zoomed_pixels, zoomed_depth = project(points, near.viewmats, near.Ks)
    torch.testing.assert_close(zoomed_pixels, (pixels - torch.tensor([10.0, 20.0])) * 3)
    torch.testing.assert_close(zoomed_depth, depth)


def test_a_sharper_render_loses_what_the_truth_lacks(rng):
    fine = torch.rand(3, 128, 128, generator=rng)  # four times the picture's resolution
    picture = F.avg_pool2d(fine, 4)
    corners, sides = torch.tensor([5.0, 9.0]), torch.tensor(12.0)
    seen = as_enlarged(fine[:, 36:84, 20:68], corners, sides, 32)
    truth = resample(picture, corners, sides, 48)
    inner = slice(2, -2)  # beyond the outermost half pixels the crop does not know its neighbours
    torch.testing.assert_close(seen[:, inner, inner], truth[:, inner, inner])
    crops = torch.rand(3, 8, 8, generator=rng)
    torch.testing.assert_close(as_enlarged(crops, corners, sides, 32), crops)  # has fewer pixels than the box


def test_regions_hold_every_part_once():
    assert sorted(name for names in REGIONS for name in names) == sorted(PART_NAMES)
    weights = dict(zip(PART_NAMES, region_weights().sum(dim=0).tolist(), strict=True))
    doubled = {name for name, weight in weights.items() if weight == 2}
    assert doubled == {"head"} | {
        side + part for side in ("left", "right") for part in ("Hand", "HandIndex1", "Arm", "ForeArm")
    }


def test_boxes_keep_their_batch_axes(part_map):
    boxes = find_regions(part_map.expand(2, 3, 32, 32), region_weights(), 32, margin=0.0, min_pixels=1)
    single = find_regions(part_map, region_weights(), 32, margin=0.0, min_pixels=1)
    for field in dataclasses.fields(boxes):
        value = getattr(boxes, field.name)
        torch.testing.assert_close(value, getattr(single, field.name).expand_as(value))
