import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from humansplat.metrics.image import (
    color_error,
    crop,
    mask_box,
    psnr,
    psnr_in_box,
    saturation,
    sharpness,
    silhouette_iou,
    ssim,
)


@pytest.fixture
def pair(rng):
    reference = torch.nn.functional.interpolate(torch.rand(2, 3, 7, 8, generator=rng), size=(40, 52), mode="bilinear")
    noisy = (reference + 0.1 * torch.randn(reference.shape, generator=rng)).clamp(0, 1)
    return noisy, reference


def test_psnr_agrees_with_skimage(pair):
    for value, image, reference in zip(psnr(*pair), *pair, strict=True):
        expected = peak_signal_noise_ratio(reference.numpy(), image.numpy(), data_range=1.0)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_ssim_agrees_with_skimage(pair):
    for value, image, reference in zip(ssim(*pair), *pair, strict=True):
        expected = structural_similarity(
            reference.double().numpy(),
            image.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_equal_images_are_perfect(pair):
    _, reference = pair
    assert psnr(reference, reference).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(reference, reference), torch.ones(2))


def test_metrics_are_symmetric_and_batch_as_a_loop_does(pair):
    torch.testing.assert_close(ssim(*pair), ssim(*pair[::-1]))
    torch.testing.assert_close(ssim(*pair), torch.stack([ssim(pair[0][i], pair[1][i]) for i in range(2)]))
    torch.testing.assert_close(psnr(*pair), torch.stack([psnr(pair[0][i], pair[1][i]) for i in range(2)]))


def test_ssim_has_right_gradients(rng):
    image = torch.rand(1, 12, 12, generator=rng, dtype=torch.float64).requires_grad_()
    reference = torch.rand(1, 12, 12, generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ssim(x, reference), image, fast_mode=True)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 20 x 10"):
        ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))


def test_silhouette_iou_counts_pixels():
    a, b = torch.zeros(2, 8, 8)
    a[:4], b[2:6] = 1, 1
    assert silhouette_iou(a, b).item() == pytest.approx(16 / 48)
    assert silhouette_iou(a, a).item() == 1
    assert silhouette_iou(torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)).tolist() == [1, 1]


def test_the_box_holds_the_mask_and_a_margin():
    mask = torch.zeros(100, 80)
    mask[20:60, 30:50] = 1
    assert mask_box(mask, margin=0.0).tolist() == [30, 20, 50, 60]
    assert mask_box(mask, margin=0.1).tolist() == [26, 16, 54, 64]
    assert mask_box(mask, margin=2.0).tolist() == [0, 0, 80, 100]
    assert mask_box(torch.zeros(100, 80)).tolist() == [0, 0, 80, 100]
    assert crop(mask, mask_box(mask, margin=0.0).tolist()).min() == 1


@pytest.mark.parametrize(("top", "left"), [(0, 0), (98, 78), (50, 40)])
def test_the_box_can_have_a_least_size(top, left):
    mask = torch.zeros(100, 80)
    mask[top : top + 2, left : left + 2] = 1
    box = mask_box(mask, margin=0.0, min_size=11).tolist()
    assert crop(mask, box).shape == (11, 11)
    assert crop(mask, box).sum() == 4


def test_boxes_of_many_masks_are_the_boxes_of_each(rng):
    masks = torch.zeros(30, 40, 60)
    for mask in masks[1:]:
        left, top = torch.randint(30, (2,), generator=rng).tolist()
        mask[top : top + 7, left : left + 12] = torch.rand(min(7, 40 - top), 12, generator=rng)
    together = mask_box(masks, min_size=16)
    assert torch.equal(together, torch.stack([mask_box(mask, min_size=16) for mask in masks]))
    assert (together[:, 2:] - together[:, :2]).min() >= 16


def test_psnr_in_boxes_is_that_of_the_crops(rng):
    image, reference = torch.rand(2, 4, 3, 40, 60, generator=rng)
    boxes = torch.tensor([[0, 0, 60, 40], [3, 5, 20, 30], [59, 0, 60, 40], [10, 10, 30, 12]])
    expected = [psnr(crop(a, box), crop(b, box)) for a, b, box in zip(image, reference, boxes.tolist(), strict=True)]
    torch.testing.assert_close(psnr_in_box(image, reference, boxes), torch.stack(expected))


def test_a_grey_picture_lacks_all_of_the_colours_whatever_its_shade(pair):
    _, reference = pair
    masks = torch.ones(2, 40, 52)
    grey = reference.mean(dim=1, keepdim=True).expand_as(reference)
    torch.testing.assert_close(color_error(grey * 0.5, reference, masks), torch.ones(2))
    torch.testing.assert_close(color_error((grey + reference) / 2 + 0.1, reference, masks), torch.full((2,), 0.25))
    half = masks.clone()
    half[..., 26:] = 0
    spoilt = torch.where(half[:, None] > 0, reference, reference.flip(1))
    torch.testing.assert_close(color_error(spoilt, reference, half), torch.zeros(2))


def test_sharpness_is_the_share_of_the_true_differences_within_the_person(pair):
    _, reference = pair
    masks = torch.zeros(2, 40, 52)
    masks[:, 5:30, 10:40] = 1
    faint = torch.where(
        masks[:, None] > 0, 0.25 + reference / 2, 1.0
    )  # half of them; the edge to the white is left out
    torch.testing.assert_close(sharpness(faint, reference, masks), torch.full((2,), 0.5))
    torch.testing.assert_close(sharpness(reference, reference, masks), torch.ones(2))


def test_saturation_is_the_share_of_the_true_colours_within_the_person(pair):
    _, reference = pair
    masks = torch.zeros(2, 40, 52)
    masks[:, 5:30, 10:40] = 1
    grey = reference.mean(dim=1, keepdim=True).expand_as(reference)
    torch.testing.assert_close(saturation((reference + grey) / 2, reference, masks), torch.full((2,), 0.5))
    torch.testing.assert_close(saturation(grey, reference, masks), torch.zeros(2), atol=1e-5, rtol=0)
