"""From a capture to a posed body: the lifter's markers, then the fit."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.fit import BodyFitter
from humansplat.body.fit_report import BodyFit
from humansplat.body.landmarks import MIRRORED_LANDMARKS
from humansplat.body.markers import MIRRORED_MARKERS
from humansplat.body.protocol import BodyModel
from humansplat.capture.capture import Capture
from humansplat.data.crops import Framing, framed_points, reframe
from humansplat.io.checksum import sha256_of
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.weights import WEIGHT_FILE, load_module, shipped_lifter
from humansplat.structures import LiftedMarkers

KNOWN_VISIBILITY = 0.3
"""Landmarks that are less visible count as not found: the detector guesses them."""
LOOKS = (
    (1.0, 0.0, 0.0, 0.0), (1.03, 0.04, 0.008, 0.0), (0.97, -0.04, -0.008, 0.0), (1.0, 0.03, 0.0, 0.008),
    (1.0, -0.03, 0.0, -0.008),
)  # fmt: skip
"""Scale, roll in radians, and shift to the right and down in sides of the crop, of each look at it."""


class BodyEstimator:
    """Estimates bodies from captures; loads what it needs once.

    Args:
        model: The body model that is fitted.
        lifter: Folder of the lifter; by default the one that ships for this body model.

    Raises:
        UserError: If the body model cannot be fitted, or the lifter's weights are missing or broken.
    """

    def __init__(self, model: BodyModel, lifter: Path | None = None) -> None:
        self.fitter = BodyFitter(model)
        folder = lifter or shipped_lifter(model.name)
        self.lifter = load_module(MarkerLifter, folder)
        self.lifter_sha256 = sha256_of(folder / WEIGHT_FILE)

    @property
    def model(self) -> BodyModel:
        """The body model that is fitted."""
        return self.fitter.model

    def __call__(self, capture: Capture) -> BodyFit:
        """Pose the body as the capture shows."""
        return self.fitter(
            capture.landmarks, capture.visibility, capture.world_landmarks, capture.mask, self.lift(capture)
        )

    @torch.no_grad()
    def lift(self, capture: Capture) -> LiftedMarkers:
        """The markers of the body as the lifter sees them, unbatched: the mean over several looks at the crop.

        Each look frames the crop a little differently, and half of them are mirrored. On rendered people the mean's
        error is 3 to 7 % less than that of one look.
        """
        picture, landmarks = lifter_inputs(capture, int(self.lifter.config["image_size"]))
        count = len(LOOKS)
        framing = look_framing()
        places = framed_points(landmarks[..., :2].expand(count, -1, -1), framing)
        looks = reframe(picture.expand(count, -1, -1, -1), framing)
        known = landmarks[..., 2:].expand(count, -1, -1)
        mirrored = torch.cat([1 - places[..., :1], places[..., 1:]], dim=-1)[:, list(MIRRORED_LANDMARKS)]
        seen = self.lifter(
            torch.cat([looks, looks.flip(-1)]),
            torch.cat(
                [torch.cat([places, known], dim=-1), torch.cat([mirrored, known[:, list(MIRRORED_LANDMARKS)]], dim=-1)]
            ),
        )
        return mean_of(unframed(seen[:count], framing), unframed(unmirrored(seen[count:]), framing))


def lifter_inputs(capture: Capture, size: int) -> tuple[Float[Tensor, "1 4 s s"], Float[Tensor, "1 33 3"]]:
    """A capture as the lifter takes it: the picture before white and its mask, and the landmarks."""
    side = capture.mask.shape[-1]
    picture = torch.cat([capture.composited(), capture.mask[None]])[None]
    if side != size:
        picture = F.interpolate(picture, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    known = (capture.visibility >= KNOWN_VISIBILITY).float()
    return picture, torch.cat([capture.landmarks / side, known[:, None]], dim=-1)[None]


def look_framing() -> Framing:
    """How each look frames the crop."""
    scale, roll, right, down = torch.tensor(LOOKS).unbind(-1)
    middle = torch.full((len(LOOKS), 2), 0.5)
    return Framing(scale=scale, roll=roll, source=middle, target=middle + torch.stack([right, down], dim=-1))


def unframed(seen: LiftedMarkers, framing: Framing) -> LiftedMarkers:
    """Markers of framed crops in the crop that was framed."""
    turn, scale = framing.turn(), framing.scale[:, None, None]
    flat = (seen.points[..., :2] - framing.target[:, None]) / scale @ turn + framing.source[:, None]
    up = torch.cat([(seen.up[:, None, :2] @ turn)[:, 0], seen.up[:, 2:]], dim=-1)
    points = torch.cat([flat, seen.points[..., 2:] / scale], dim=-1)
    return replace(seen, points=points, point_scales=seen.point_scales / scale, up=up)


def unmirrored(seen: LiftedMarkers) -> LiftedMarkers:
    """Markers of mirrored crops, each side's under the name that it has unmirrored.

    Markers on the skin have no counterpart: they are not a number.
    """
    order = list(MIRRORED_MARKERS)
    points = torch.cat([1 - seen.points[..., :1], seen.points[..., 1:]], dim=-1)
    points[:, : len(order)] = points[:, order]
    points[:, len(order) :] = torch.nan
    scales = seen.point_scales.clone()
    scales[:, : len(order)] = scales[:, order]
    scales[:, len(order) :] = torch.nan
    return replace(seen, points=points, point_scales=scales, up=torch.cat([-seen.up[:, :1], seen.up[:, 1:]], dim=-1))


def mean_of(direct: LiftedMarkers, mirrored: LiftedMarkers) -> LiftedMarkers:
    """The mean of all looks, unbatched."""

    def mean(name: str) -> Tensor:
        return torch.cat([getattr(direct, name), getattr(mirrored, name)]).nanmean(dim=0)

    return LiftedMarkers(
        points=mean("points"),
        point_scales=mean("point_scales"),
        phenotypes=mean("phenotypes"),
        phenotype_scales=mean("phenotype_scales"),
        up=F.normalize(mean("up"), dim=-1),
        up_scale=mean("up_scale"),
    )
