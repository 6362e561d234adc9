"""From a person's crop and landmarks to body markers in three dimensions, with how sure each is.

Landmark detectors place a limb well in the picture and badly along the line of sight. This network is given the
landmarks in the picture, reads depth from what a detector throws away (shading, overlap, the size of hands and
shoes) and says how far to trust it. Every marker has a
heatmap over cells; its place is the heatmap's mean, and its depth and deviations are means of further maps under
that heatmap, as in integral pose regression (Sun et al., "Integral Human Pose Regression", ECCV 2018).

Markers are in *crop units*: ``u`` and ``v`` in sides of the crop from its top left corner, and depth as
``focal * (z - z_root) / z_root`` with the focal length in sides of the crop, positive away from the camera. So all
three have one scale, and none depends on how tall the person is or how far away, which a picture cannot tell.

Shapes: b batch, k markers, l landmarks, p phenotypes, s side of the crop.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.models.layers import SelfAttentionBlock
from humansplat.structures import LiftedMarkers

LOG_SCALE_RANGE = (-7.0, 1.0)
"""Bounds of predicted logarithms of deviations."""
START_LOG_SCALE = -3.0
BLOB_CELLS = 0.75
"""Deviation of a landmark's spot, in cells."""
STRIDE, COARSE = 8, 2
"""Pixels on a side of a heatmap's cell, and cells on a side of an attention token."""


class ConvBlock(nn.Module):
    """Depthwise convolution and feed-forward (Liu et al., "A ConvNet for the 2020s", CVPR 2022)."""

    def __init__(self, width: int, *, kernel: int = 7) -> None:
        super().__init__()
        self.across = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.shrink = nn.Conv2d(4 * width, width, 1)
        nn.init.zeros_(self.shrink.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.shrink(F.gelu(self.expand(self.norm(self.across(x)))))


class MarkerLifter(ModelMixin, ConfigMixin):
    """Predict markers of a body, its shape and the direction up from a crop.

    Convolutions down to cells of 8 pixels, then attention over tokens of 16; the attention blocks are gone
    through several times with the same weights, which buys depth without size (Lan et al., "ALBERT", 2020).

    Args:
        num_markers: ``k``.
        num_landmarks: ``l``.
        num_phenotypes: ``p``, each in [0, 1].
        image_size: Side of the crop, pixels.
        fine_width: Channels of the cells.
        width: Channels of the tokens.
        num_heads: Attention heads.
        num_fine_blocks: Convolution blocks on the cells.
        num_blocks: Attention blocks with weights of their own.
        num_rounds: How often they are gone through.
    """

    @register_to_config
    def __init__(
        self,
        *,
        num_markers: int,
        num_landmarks: int = 33,
        num_phenotypes: int,
        image_size: int = 256,
        fine_width: int = 96,
        width: int = 144,
        num_heads: int = 4,
        num_fine_blocks: int = 2,
        num_blocks: int = 3,
        num_rounds: int = 3,
    ) -> None:
        super().__init__()
        self.num_markers, self.num_rounds = num_markers, num_rounds
        self.cells = image_size // STRIDE
        tokens = self.cells // COARSE
        self.stem = nn.Sequential(
            nn.Conv2d(4, fine_width // 3, 3, stride=2, padding=1),
            nn.GroupNorm(1, fine_width // 3),
            nn.GELU(),
            nn.Conv2d(fine_width // 3, 2 * fine_width // 3, 3, stride=2, padding=1),
            nn.GroupNorm(1, 2 * fine_width // 3),
            nn.GELU(),
            nn.Conv2d(2 * fine_width // 3, fine_width, 3, stride=2, padding=1),
        )
        self.place_landmarks = nn.Conv2d(num_landmarks, fine_width, 1, bias=False)
        self.read_landmarks = nn.Sequential(nn.Linear(3 * num_landmarks, width), nn.GELU(), nn.Linear(width, width))
        self.fine = nn.Sequential(*(ConvBlock(fine_width) for _ in range(num_fine_blocks)))
        self.down = nn.Conv2d(fine_width, width, COARSE, stride=COARSE)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens**2, width))
        self.blocks = nn.ModuleList(SelfAttentionBlock(width=width, num_heads=num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.up_to_cells = nn.Conv2d(width, fine_width, 1)
        self.mix = ConvBlock(fine_width, kernel=5)
        self.maps = nn.Conv2d(fine_width, 4 * num_markers, 1)
        self.whole = nn.Linear(width, 2 * num_phenotypes + 4)
        nn.init.zeros_(self.whole.weight)
        nn.init.zeros_(self.whole.bias)

    def forward(self, images: Float[Tensor, "b 4 s s"], landmarks: Float[Tensor, "b l 3"]) -> LiftedMarkers:
        """Lift crops.

        Args:
            images: sRGB before white, and the mask, in ``[0, 1]``.
            landmarks: Places in fractions of the crop, and 1 where a landmark is known or 0 where it is not.
        """
        known = landmarks[..., 2:]
        landmarks = torch.cat([(landmarks[..., :2] - 0.5) * known, known], dim=-1)
        cells = self.fine(self.stem(2 * images - 1) + self.place_landmarks(self._blobs(landmarks)))
        tokens = self.down(cells)
        shape = tokens.shape[-2:]
        x = tokens.flatten(2).mT + self.positions + self.read_landmarks(landmarks.flatten(1))[:, None]
        for _ in range(self.num_rounds):
            for block in self.blocks:
                x = block(x)
        x = self.norm(x)
        coarse = F.interpolate(self.up_to_cells(x.mT.unflatten(2, shape)), scale_factor=COARSE, mode="bilinear")
        maps = self.maps(self.mix(cells + coarse)).float().unflatten(1, (4, self.num_markers)).flatten(3)
        points, scales = self._markers(maps)
        shape_mean, shape_scale, up, up_scale = self._whole(x.mean(dim=1))
        return LiftedMarkers(
            points=points,
            point_scales=scales,
            phenotypes=shape_mean,
            phenotype_scales=shape_scale,
            up=up,
            up_scale=up_scale,
        )

    def _blobs(self, landmarks: Float[Tensor, "b l 3"]) -> Float[Tensor, "b l g g"]:
        """A spot on the grid of cells for each landmark that is known."""
        centers = (torch.arange(self.cells, device=landmarks.device) + 0.5) / self.cells - 0.5
        x, y = (
            (-0.5 * ((centers - landmarks[..., axis, None]) * self.cells / BLOB_CELLS).square()).exp()
            for axis in (0, 1)
        )
        return landmarks[..., 2, None, None] * y[..., :, None] * x[..., None, :]

    def _markers(self, maps: Float[Tensor, "b 4 k n"]) -> tuple[Float[Tensor, "b k 3"], Float[Tensor, "b k 2"]]:
        """Means under each marker's heatmap."""
        heat = maps[:, 0].softmax(dim=-1)
        centers = (torch.arange(self.cells, device=maps.device) + 0.5) / self.cells
        u = (heat.unflatten(-1, (self.cells, self.cells)).sum(dim=-2) * centers).sum(dim=-1)
        v = (heat.unflatten(-1, (self.cells, self.cells)).sum(dim=-1) * centers).sum(dim=-1)
        depth, across, along = (heat[:, None] * maps[:, 1:]).sum(dim=-1).unbind(dim=1)
        scales = torch.stack([_scale(across), _scale(along)], dim=-1)
        return torch.stack([u, v, 0.1 * depth], dim=-1), scales

    def _whole(self, x: Float[Tensor, "b d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = self.whole(x).float()
        count = (values.shape[-1] - 4) // 2
        mean, log_scale, up = values[:, :count], values[:, count : 2 * count], values[:, 2 * count : -1]
        down = torch.zeros_like(up)
        down[:, 1] = 1.0
        return mean.sigmoid(), _scale(log_scale), F.normalize(0.3 * up - down, dim=-1), _scale(values[:, -1])


def _scale(raw: Tensor) -> Tensor:
    return (raw + START_LOG_SCALE).clamp(*LOG_SCALE_RANGE).exp()
