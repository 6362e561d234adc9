"""One picture that shows a result: the photo beside four views."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from humansplat.geometry.projection import orbit
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians

GAP = 4
"""White columns between the tiles, pixels."""
LABEL_HEIGHT = 16
"""Height of a line of text, pixels."""


def preview_image(
    photo: Float[Tensor, "3 s s"], splats: Gaussians, camera: Cameras, center: Float[Tensor, "3"]
) -> Float[Tensor, "3 s w"]:
    """The photo's crop, then the splats from its camera and from those carried by 90, 180 and 270 degrees.

    Args:
        photo: sRGB, the size of the camera's image.
        splats: Unbatched.
        camera: Unbatched.
        center: The axis that the camera is carried around goes through it, world frame, metres.
    """
    views = orbit(camera, center, torch.arange(4, device=center.device) * (math.pi / 2))
    renders = render_gaussians(splats, views).colors.movedim(-1, 1).clamp(0, 1).cpu()
    return side_by_side([photo.cpu(), *renders])


def side_by_side(images: list[Float[Tensor, "3 h _"]]) -> Float[Tensor, "3 h w"]:
    """Images of one height in a row, white between them."""
    padded = [F.pad(image, (0, GAP), value=1.0) for image in images[:-1]]
    return torch.cat([*padded, images[-1]], dim=-1)


def stacked(rows: list[Float[Tensor, "3 _ w"]]) -> Float[Tensor, "3 h w"]:
    """Images of one width below each other, white between them."""
    padded = [F.pad(row, (0, 0, 0, GAP), value=1.0) for row in rows[:-1]]
    return torch.cat([*padded, rows[-1]], dim=-2)


def labelled(image: Float[Tensor, "3 h w"], text: str) -> Float[Tensor, "3 y w"]:
    """An image under a line of text."""
    strip = Image.new("L", (image.shape[-1], LABEL_HEIGHT), 255)
    ImageDraw.Draw(strip).text((2, 2), text, fill=0)
    line = torch.from_numpy(np.array(strip)).float() / 255
    return torch.cat([line.expand(3, -1, -1), image], dim=-2)
