import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from humansplat.config import HierarchicalConfig, PerceptualConfig
from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder
from humansplat.models.feature_distance import FeatureDistance
from humansplat.training.perceptual import build_perceptual, picture_distance


class Difference(nn.Module):
    def forward(self, image, reference):
        return (image - reference).abs().mean(dim=(1, 2, 3))


def test_the_kind_is_what_the_configuration_says(tmp_path):
    autoencoder = build_autoencoder((16, 16, 16, 16))
    assert build_perceptual(PerceptualConfig(), autoencoder) is None
    assert isinstance(build_perceptual(PerceptualConfig(kind="encoder"), autoencoder), FeatureDistance)
    with pytest.raises(UserError, match="lpips_vgg|vgg16"):  # never another kind instead
        build_perceptual(PerceptualConfig(kind="lpips", folder=tmp_path), autoencoder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0.1}, "kind is none"),
        ({"kind": "lpips"}, "needs the folder"),
        ({"kind": "encoder", "folder": Path("weights")}, "nothing else does"),
        ({"num_pictures": 0}, "num_pictures"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        PerceptualConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"levels": (32, 48)}, {"levels": (64, 32)}, {"levels": ()}, {"levels": (8, 16)}, {"level_weights": (1.0,)},
     {"weight": -1.0}, {"part_crops": 0}],
)  # fmt: skip
def test_senseless_levels_are_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        HierarchicalConfig(**values)
    dataclasses.replace(HierarchicalConfig(), levels=(16, 48))


def test_some_pictures_of_each_person_are_compared(rng):
    truth = torch.zeros(2, 3, 3, 16, 16)
    pictures = torch.tensor([[1.0, 2, 3], [10, 20, 30]])[..., None, None, None].expand_as(truth)
    whole = picture_distance(Difference(), pictures, truth, 3, rng)
    assert whole.item() == pytest.approx(11)
    drawn = {picture_distance(Difference(), pictures, truth, 1, rng).item() for _ in range(40)}
    assert drawn <= {(a + b) / 2 for a in (1, 2, 3) for b in (10, 20, 30)}
    assert len(drawn) > 6
