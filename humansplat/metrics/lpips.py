"""LPIPS: a distance of pictures in the features of a network that knows photographs (Zhang et al., CVPR 2018).

Version 0.1 with VGG16. The weights are others' (the network's are torchvision's of ImageNet, the channels' are those
of the paper's authors), so they come from files that the user has.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from humansplat.errors import UserError
from humansplat.misfits import check_tensors

VGG_FILE, LINEAR_FILE, BOTH_FILE = "vgg16-397923af.pth", "vgg.pth", "lpips_vgg.safetensors"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's colours in ``[-1, 1]``."""
WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of VGG16's five blocks; features are taken after each block's last."""


class Lpips(nn.Module):
    """Distance of pictures: squared differences of unit-normalised features, weighted by channel, over five layers.

    Its parameters ask for no gradient. The names of its tensors are those of the published files.

    Args:
        widths: Channels of the five blocks; others than VGG16's are for trying.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        features, channels, self.taps = nn.ModuleDict(), 3, []
        place = 0
        for width, depth in zip(widths, DEPTHS, strict=True):
            for _ in range(depth):
                features[str(place)] = nn.Conv2d(channels, width, 3, padding=1)
                channels, place = width, place + 2  # torchvision counts the ReLU, too
            self.taps.append(str(place - 2))
            place += 1  # and the pooling
        self.features = features
        self.linear = nn.ParameterList([nn.Parameter(torch.ones(1, width, 1, 1) / width) for width in widths])
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @staticmethod
    def from_folder(folder: Path) -> "Lpips":
        """Load published weights.

        Args:
            folder: Holds ``vgg16-397923af.pth`` (torchvision) and ``vgg.pth`` (LPIPS 0.1), or both in
                ``lpips_vgg.safetensors`` under the same names.

        Raises:
            UserError: If files are missing or are not those.
        """
        model = Lpips()
        model.load_published(read_weights(folder), str(folder))
        return model.eval()

    def load_published(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take the weights from a dictionary with the published names.

        Raises:
            UserError: With the names that are missing, unexpected or of another shape.
        """
        mine = {_published(name): name for name in self.state_dict()}
        found = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
        state = self.state_dict()
        shapes = {name: state[own].shape for name, own in mine.items()}
        check_tensors(found, shapes, source, "LPIPS 0.1 with VGG16", remedy())
        self.load_state_dict({own: found[name] for name, own in mine.items()})

    def forward(self, image: Float[Tensor, "n 3 h w"], reference: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distances of pictures in ``[0, 1]`` of at least 16 x 16 pixels; differentiable where the pictures are."""
        total = image.new_zeros(len(image), dtype=torch.float32)
        layers = zip(self._features(image), self._features(reference), self.linear, strict=True)
        for ours, theirs, weight in layers:
            squared = (unit(ours) - unit(theirs)).square()
            total = total + (squared * weight.float()).sum(dim=1).mean(dim=(1, 2))
        return total

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x, taken = (2 * pictures - 1 - self.shift) / self.scale, []
        x = x.contiguous(memory_format=torch.channels_last)  # what GPUs convolve fastest
        for place, convolution in self.features.items():
            x = F.relu(convolution(x))
            if place in self.taps:
                taken.append(x)
                if len(taken) < len(self.taps):
                    x = F.max_pool2d(x, 2)
        return taken


def unit(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Features of every place divided by their length, in float32."""
    features = features.float()
    # The first small number keeps the root's gradient finite where all features are 0.
    return features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of the published files in a folder, by their published names.

    Raises:
        UserError: If files are missing or broken.
    """
    both = folder / BOTH_FILE
    files = [both] if both.is_file() else [folder / VGG_FILE, folder / LINEAR_FILE]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UserError(f"LPIPS needs {' and '.join(absent)} in {folder}; {remedy()}")
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            # weights_only: such a file can hold nothing but tensors.
            part = load_file(file) if file == both else torch.load(file, map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
            raise UserError(f"{file} holds no tensors that can be read; {remedy()}") from error
        if not isinstance(part, dict) or not all(isinstance(value, Tensor) for value in part.values()):
            raise UserError(f"{file} is no dictionary of tensors; {remedy()}")
        weights |= part
    return weights


def remedy() -> str:
    """Where the weights are, and what there is without them."""
    return (
        f"{VGG_FILE} is what torchvision has for VGG16 (IMAGENET1K_V1), {LINEAR_FILE} lies in lpips/weights/v0.1 "
        "of the package lpips (github.com/richzhang/PerceptualSimilarity); or set reconstruction.perceptual.kind to "
        "encoder, which needs no download"
    )


def _published(name: str) -> str:
    kind, place, *_ = name.split(".")
    return f"lin{place}.model.1.weight" if kind == "linear" else name
