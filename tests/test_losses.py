import pytest
import torch

from humansplat.losses import (
    absolute_loss,
    mask_loss,
    opacity_penalty,
    spill_penalty,
    squared_loss,
    ssim_loss,
)
from humansplat.metrics.image import ssim


@pytest.fixture
def pair(rng):
    image = torch.rand(2, 3, 3, 24, 20, generator=rng)
    return image, (image + 0.2 * torch.randn(image.shape, generator=rng)).clamp(0, 1)


def test_losses_are_zero_for_equal_pictures_and_grow_with_the_error(pair):
    image, other = pair
    for loss in (squared_loss, absolute_loss, ssim_loss):
        assert loss(image, image).item() == pytest.approx(0, abs=1e-6)
        nearer = image + 0.3 * (other - image)
        assert 0 < loss(nearer, image) < loss(other, image)


def test_errors_are_means_over_everything(pair):
    image, other = pair
    torch.testing.assert_close(squared_loss(image, other), (image - other).square().mean())
    torch.testing.assert_close(absolute_loss(image, other), (image - other).abs().mean())


def test_ssim_loss_is_the_metrics_complement_whatever_the_autocast(pair):
    image, other = pair
    plain = ssim_loss(image, other)
    torch.testing.assert_close(plain, 1 - ssim(image, other).mean())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_loss(image, other), plain)
    half = ssim_loss(image.bfloat16(), other.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(plain.item(), abs=0.01)


def test_following_the_gradient_restores_the_picture(pair):
    reference, other = pair
    start = sum(loss(other, reference).item() for loss in (squared_loss, ssim_loss))
    image = other.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = squared_loss(image, reference) + ssim_loss(image, reference)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * start


def test_flat_pictures_have_finite_gradients():
    image = torch.ones(1, 3, 16, 16, requires_grad=True)
    (ssim_loss(image, torch.ones(1, 3, 16, 16)) + squared_loss(image, torch.ones(1, 3, 16, 16))).backward()
    assert image.grad.isfinite().all()


def test_spill_begins_beyond_the_margin():
    mask = torch.zeros(1, 32, 32)
    mask[:, 12:20, 12:20] = 1
    near, far = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    near[0, 8, 8] = far[0, 7, 12] = 1  # 4 pixels away, and 5
    assert spill_penalty(near, mask, margin=4) == 0
    assert spill_penalty(far, mask, margin=4).item() == pytest.approx(1 / 32**2)
    assert mask_loss(mask, mask) == 0
    assert mask_loss(far, torch.zeros(1, 32, 32)).item() == pytest.approx(1 / 32**2)


def test_splat_penalties_know_their_minima():
    assert opacity_penalty(torch.tensor([[0.0, 1.0]])) == 0
    assert opacity_penalty(torch.tensor([[0.5]])) == 1
