"""One camera in the pixels of a photo and in those of the crop that a capture cut out of it."""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.capture.capture import Capture
from humansplat.structures import Cameras


def camera_in_photo(camera: Cameras, capture: Capture, width: int, height: int) -> Cameras:
    """The crop's camera in the pixels of the upright photo."""
    return Cameras(viewmats=camera.viewmats, Ks=_to_photo(capture) @ camera.Ks.cpu(), width=width, height=height)


def camera_in_crop(camera: Cameras, capture: Capture) -> Cameras:
    """The photo's camera in the pixels of the crop."""
    size = capture.mask.shape[-1]
    Ks = torch.linalg.inv(_to_photo(capture)) @ camera.Ks
    return Cameras(viewmats=camera.viewmats, Ks=Ks, width=size, height=size)


def _to_photo(capture: Capture) -> Float[Tensor, "3 3"]:
    return torch.cat([capture.crop_to_photo, torch.tensor([[0.0, 0.0, 1.0]])])
