"""The batched figures against pictures cropped one by one."""

import math

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.metrics.image import crop, psnr, silhouette_iou, ssim, ssim_and_in_box
from humansplat.metrics.parts import projected_box
from humansplat.metrics.scores import METRICS, means_by_side, score_views
from humansplat.metrics.views import person_box
from humansplat.structures import Cameras

SIZE = 64


def test_figures_are_those_of_pictures_cropped_one_by_one(rng):
    colors, truth = torch.rand(2, 2, 3, 3, SIZE, SIZE, generator=rng)
    alphas = torch.rand(2, 3, SIZE, SIZE, generator=rng)
    mask = torch.zeros(2, 3, SIZE, SIZE)
    for view in range(3):
        mask[:, view, 10 : 30 + 5 * view, 20:45] = 1
    head = torch.tensor([[20, 10, 34, 25], [0, 0, 0, 0], [3, 4, 60, 64]]).expand(2, 3, 4)
    scores = score_views(colors, alphas, truth, mask, head)
    assert tuple(scores) == METRICS
    for person in range(2):
        for view in range(3):
            image, reference = colors[person, view], truth[person, view]
            box = person_box(mask[person, view]).tolist()
            found = {name: values[person, view].item() for name, values in scores.items()}
            assert found["psnr"] == pytest.approx(psnr(image, reference).item(), abs=1e-4)
            assert found["ssim"] == pytest.approx(ssim(image, reference).item(), abs=1e-6)
            assert found["psnr_box"] == pytest.approx(psnr(crop(image, box), crop(reference, box)).item(), abs=1e-4)
            assert found["ssim_box"] == pytest.approx(ssim(crop(image, box), crop(reference, box)).item(), abs=1e-5)
            iou = silhouette_iou(alphas[person, view], mask[person, view])
            assert found["silhouette_iou"] == pytest.approx(iou.item())
            if view == 1:
                assert math.isnan(found["psnr_head"])
            else:
                box = head[person, view].tolist()
                expected = psnr(crop(image, box), crop(reference, box)).item()
                assert found["psnr_head"] == pytest.approx(expected, abs=1e-4)


def test_ssim_of_a_box_of_one_window(rng):
    image, reference = torch.rand(2, 3, 40, 40, generator=rng)
    box = torch.tensor([5, 7, 16, 18])
    expected = ssim(crop(image, box.tolist()), crop(reference, box.tolist()))
    whole, in_box = ssim_and_in_box(image, reference, box)
    torch.testing.assert_close(in_box, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, ssim(image, reference))


def test_means_weigh_views_alike_and_leave_out_what_is_not_seen():
    scores = {"psnr": torch.tensor([10.0, 20, 30, 99]), "psnr_head": torch.tensor([math.nan, 5, 7, 9])}
    means = {name: value.item() for name, value in means_by_side(scores, torch.tensor([0, 2, 2, -1])).items()}
    assert means["psnr"] == 20
    assert means["psnr_front"] == 10
    assert means["psnr_back"] == 25
    assert math.isnan(means["psnr_side"])
    assert means["psnr_head"] == means["psnr_head_back"] == 6
    assert math.isnan(means["psnr_head_front"])


def test_boxes_of_points_follow_the_camera_and_end_at_the_picture():
    at, up = torch.tensor([0.0, 1.6, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    view = look_at(torch.tensor([0.0, 1.6, 2.0]), at, up)
    camera = Cameras(viewmats=view, Ks=intrinsics(math.radians(40), SIZE, SIZE), width=SIZE, height=SIZE)
    cameras = orbit(camera, torch.zeros(3), torch.tensor([0.0, math.pi / 2, math.pi]))
    points = at + torch.tensor([[0.15, 0.2, 0.13], [-0.15, -0.2, -0.13], [0.0, 0.0, 0.0]])
    left, top, right, bottom = projected_box(points, cameras, margin=0.0).unbind(-1)
    focal = camera.Ks[0, 0].item()
    assert left[0] == math.floor(SIZE / 2 - 0.15 * focal / 2.13)
    assert (right - left)[1] < (right - left)[0]  # 0.26 m deep, 0.3 m wide
    assert ((bottom - top) > (right - left)).all()
    wide = projected_box(points, cameras, margin=0.2)
    assert (wide[:, :2] < torch.stack([left, top], dim=-1)).all()
    low = at - torch.tensor([0.0, 0.6, 0.0]) + torch.tensor([[0.2, 0.2, 0.0], [-0.2, -0.2, 0.0]])
    cut = projected_box(low, cameras[:1], margin=0.0)[0]
    assert cut[3] == SIZE  # a third of it is below the picture
    gone = projected_box(low - torch.tensor([0.0, 0.25, 0.0]), cameras[:1])[0]
    assert gone[0] == gone[2]
    behind = projected_box(points + torch.tensor([0.0, 0.0, 4.0]), cameras[:1])[0]
    assert behind[0] == behind[2]
