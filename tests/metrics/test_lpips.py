"""LPIPS against a plain statement of it, and its files."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from humansplat.errors import UserError
from humansplat.metrics.lpips import BOTH_FILE, LINEAR_FILE, VGG_FILE, Lpips

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # places in torchvision's list, pools at 4, 9, 16, 23
TAPS = (2, 7, 14, 21, 28)
SMALL = (4, 4, 6, 6, 8)


def published(model: Lpips, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Made-up weights under the published names, in the model's shapes."""
    weights = {}
    channels = 3
    for place in CONVOLUTIONS:
        width = model.features[str(place)].out_channels
        weights[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3, generator=rng) / (9 * channels) ** 0.5
        weights[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=rng)
        channels = width
    for level, place in enumerate(TAPS):
        width = model.features[str(place)].out_channels
        weights[f"lin{level}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=rng)
    return weights


def plain_lpips(weights: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Zhang et al., Eq. 1, for one pair of pictures in [0, 1], in float64."""
    total, features = torch.zeros((), dtype=torch.float64), []
    for picture in (a, b):
        x = picture.double() * 2 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
            3, 1, 1
        )
        found = []
        for place in range(30):
            if place in CONVOLUTIONS:
                kernel, bias = (weights[f"features.{place}.{name}"].double() for name in ("weight", "bias"))
                x = F.relu(F.conv2d(x[None], kernel, bias, padding=1)[0])
            elif place in (4, 9, 16, 23):
                x = F.max_pool2d(x, 2)
            if place in TAPS:
                found.append(x)
        features.append(found)
    for level, (ours, theirs) in enumerate(zip(*features, strict=True)):
        height, width = ours.shape[1:]
        for row in range(height):
            for column in range(width):
                u, v = (f[:, row, column] / (f[:, row, column].norm() + 1e-10) for f in (ours, theirs))
                total += (weights[f"lin{level}.model.1.weight"].flatten() * (u - v) ** 2).sum() / (height * width)
    return total


def test_is_what_the_paper_says(rng):
    model = Lpips(SMALL)
    weights = published(model, rng)
    model.load_published(weights, "made up")
    a, b = torch.rand(2, 3, 3, 24, 32, generator=rng)
    expected = torch.stack([plain_lpips(weights, *pair) for pair in zip(a, b, strict=True)])
    torch.testing.assert_close(model(a, b).double(), expected, rtol=1e-4, atol=1e-6)
    assert (model(a, a) == 0).all()


def test_gradients_are_finite_even_for_flat_pictures(rng):
    model = Lpips(SMALL)
    weights = {name: -value.abs() for name, value in published(model, rng).items()}  # no feature anywhere
    model.load_published(weights, "made up")
    a = torch.ones(1, 3, 16, 16, requires_grad=True)
    model(a, torch.zeros(1, 3, 16, 16)).sum().backward()
    assert a.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_published_files_load(rng, tmp_path):
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Lpips().state_dict().items()}
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["linear.4"] == (1, 512, 1, 1)
    assert sum(len(name.split(".")) == 3 for name in shapes) == 2 * 13
    weights = published(Lpips(), rng)
    linear = {name: value for name, value in weights.items() if name.startswith("lin")}
    features = {name: value for name, value in weights.items() if name not in linear}
    torch.save(features | {"classifier.0.bias": torch.zeros(2)}, tmp_path / VGG_FILE)
    torch.save(linear, tmp_path / LINEAR_FILE)
    from_pth = Lpips.from_folder(tmp_path)
    torch.testing.assert_close(from_pth.linear[3], weights["lin3.model.1.weight"], rtol=0, atol=0)
    torch.testing.assert_close(from_pth.features["26"].weight, weights["features.26.weight"], rtol=0, atol=0)
    del weights["features.26.weight"]
    save_file(weights | {"lin9.model.1.weight": torch.zeros(1)}, tmp_path / BOTH_FILE)
    with pytest.raises(UserError, match="1 missing: features.26.weight; 1 unexpected: lin9.model.1.weight; vgg16"):
        Lpips.from_folder(tmp_path)


def test_absent_and_broken_files_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"needs vgg16-397923af.pth and vgg.pth in .*torchvision.*encoder"):
        Lpips.from_folder(tmp_path)
    for name in (VGG_FILE, LINEAR_FILE):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(UserError, match="no tensors that can be read"):
        Lpips.from_folder(tmp_path)
