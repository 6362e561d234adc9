import pytest
import torch

from humansplat.models.autoencoder import build_autoencoder
from humansplat.models.feature_distance import FeatureDistance


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return build_autoencoder((16, 16, 16, 16)).requires_grad_(False)


def test_is_the_mean_distance_of_directions(autoencoder, rng):
    a, b = torch.rand(2, 2, 3, 32, 32, generator=rng)
    levels = []
    for picture in (a, b):
        features = [autoencoder.encoder.conv_in(2 * picture - 1)]
        for block in autoencoder.encoder.down_blocks[:3]:
            features.append(block(features[-1]))
        levels.append(features)
    angles = [torch.cosine_similarity(u, v, dim=1).mean(dim=(1, 2)) for u, v in zip(*levels, strict=True)]
    expected = torch.stack([2 - 2 * cosine for cosine in angles]).mean(dim=0)
    distance = FeatureDistance(autoencoder)
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-3, atol=1e-5)
    assert (distance(a, a) == 0).all()


def test_gradients_are_the_pictures_alone(autoencoder, rng):
    a = torch.rand(1, 3, 32, 32, generator=rng, requires_grad=True)
    FeatureDistance(autoencoder)(a, torch.ones(1, 3, 32, 32)).sum().backward()
    assert a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in autoencoder.parameters())
