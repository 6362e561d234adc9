"""Learning to lift: markers in three dimensions, shape and the direction up, from one crop."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from humansplat import draws
from humansplat.body.anny import AnnyBody
from humansplat.body.fit_landmarks import LANDMARK_STD, detector_map
from humansplat.body.landmarks import MIRRORED_LANDMARKS, NUM_LANDMARKS, landmark_points
from humansplat.body.markers import ROOT_MARKER, marker_map
from humansplat.config import TrainConfig
from humansplat.data import crops
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.errors import UserError
from humansplat.geometry.projection import to_camera
from humansplat.models.autoencoder import on_white
from humansplat.models.lifter import MarkerLifter
from humansplat.structures import Cameras, LiftedMarkers, TensorStruct
from humansplat.training.people import People

VALIDATION_BATCH = 16
ERRORS = ("error_mm", "across_mm", "depth_mm", "up_degrees", "shape")
"""Of the photographs, and with ``all_`` of all views."""


class LifterBatch(TensorStruct):
    """Crops and what is to be said of them."""

    images: Float[Tensor, "n 4 s s"]
    """sRGB before white, and the mask."""
    landmarks: Float[Tensor, "n 33 3"]
    """As a detector finds them: fractions of the crop, and whether it does."""
    points: Float[Tensor, "n k 3"]
    """Crop units."""
    up: Float[Tensor, "n 3"]
    phenotypes: Float[Tensor, "n p"]
    usable: Bool[Tensor, " n"]
    """Whether the whole person is in the crop."""
    metres: Float[Tensor, " n"]
    """Length of a crop unit at the root."""


class LifterTask:
    """Laplace likelihoods of everything that ``MarkerLifter`` predicts."""

    figures = ("accuracy", *ERRORS, *(f"all_{name}" for name in ERRORS))

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.lifter
        self.augment = config.data.augment
        self.image_size = config.data.image_size or 256
        if config.data.body_model != "anny":
            raise UserError(
                f"the lifter tells the default body's shape, not that of {config.data.body_model!r}: set "
                "data.body_model to anny"
            )
        body = AnnyBody.load()
        self.num_phenotypes = len(body.phenotype_names)
        self.markers, self.detected = marker_map(body), detector_map(body)

    def build_module(self) -> nn.Module:
        """A fresh lifter."""
        return MarkerLifter(
            num_markers=len(self.markers.vertex_weights),
            num_landmarks=NUM_LANDMARKS,
            num_phenotypes=self.num_phenotypes,
            image_size=self.image_size,
            **asdict(self.options.model),
        )

    def frozen_modules(self) -> Sequence[nn.Module]:
        """None."""
        return ()

    def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> LifterBatch:
        """The photograph's view and some others of each person, framed anew and spoilt."""
        batch = pool.sample(batch_size, self.options.views_per_person, generator, augment=self.augment)
        views, cameras = with_photograph(batch)
        framing = crops.draw_framing(views[:, 3], generator)
        seen = self._batch(batch, views, cameras, framing)
        images, landmarks = crops.spoil(seen.images, generator), misplaced(seen.landmarks, generator)
        return replace(seen, images=images, landmarks=landmarks)

    def training_loss(
        self, module: nn.Module, batch: LifterBatch, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Likelihoods, and the plain errors so that doubtful markers are learned too."""
        said: LiftedMarkers = module(batch.images, batch.landmarks)
        share = batch.usable.float() / batch.usable.float().sum().clamp(min=1)
        across = (said.points - batch.points)[..., :2].abs().mean(dim=-1)
        along = (said.points - batch.points)[..., 2].abs()
        likelihood = _laplace(across, said.point_scales[..., 0]) * 2 + _laplace(along, said.point_scales[..., 1])
        shape = _laplace((said.phenotypes - batch.phenotypes).abs(), said.phenotype_scales).mean(dim=-1)
        up_error = (said.up - batch.up).norm(dim=-1)
        return {
            "markers": (likelihood.mean(dim=-1) * share).sum(),
            "absolute": self.options.absolute_weight * ((2 * across + along).mean(dim=-1) * share).sum(),
            "shape": self.options.shape_weight * (shape * share).sum(),
            "up": self.options.up_weight * (_laplace(up_error, said.up_scale) * share).sum(),
            "_across_mm": 1000 * (across.mean(dim=-1) * batch.metres * share).sum().detach(),
            "_depth_mm": 1000 * (along.mean(dim=-1) * batch.metres * share).sum().detach(),
            "_up_degrees": (up_error * share).sum().detach().rad2deg(),
        }

    def validate(self, module: nn.Module, pool: PeoplePool) -> dict[str, float]:
        """Mean errors over the photographs of held-out people; ``accuracy`` is minus the error in space, mm."""
        device = next(module.parameters()).device
        rows, novel = [], []
        for people in pool.everybody(VALIDATION_BATCH):
            views = torch.arange(pool.num_views, device=device).expand(len(people), -1)
            batch = pool.batch(people, views)
            pictures, cameras = batch.targets.flatten(0, 1), flat_cameras(batch.target_cameras)
            truth = self._batch(batch, pictures, cameras, crops.canonical_framing(pictures[:, 3]))
            said: LiftedMarkers = module(truth.images, truth.landmarks)
            error = 1000 * truth.metres[:, None, None] * (said.points - truth.points)
            values = torch.stack(
                [
                    error.norm(dim=-1).mean(dim=-1),
                    error[..., :2].norm(dim=-1).mean(dim=-1),
                    error[..., 2].abs().mean(dim=-1),
                    (said.up - truth.up).norm(dim=-1).rad2deg(),
                    (said.phenotypes - truth.phenotypes).abs().mean(dim=-1),
                ],
                dim=-1,
            )
            photograph = torch.arange(len(pictures), device=device) % pool.num_views == 0
            rows.append(values[photograph])
            novel.append(values[truth.usable])
        photographs, all_views = torch.cat(rows).mean(dim=0), torch.cat(novel).mean(dim=0)
        figures = dict(zip(ERRORS, photographs.tolist(), strict=True))
        figures |= {f"all_{name}": value for name, value in zip(ERRORS, all_views.tolist(), strict=True)}
        return {"accuracy": -figures["error_mm"]} | {name: round(value, 4) for name, value in figures.items()}

    def pictures(self, module: nn.Module, batch: LifterBatch) -> Tensor:
        """A column a crop: with its markers, and the same from the side; true ones green, predicted ones red."""
        shown = batch[:8]
        said: LiftedMarkers = module(shown.images, shown.landmarks)
        front, side = shown.images[:, :3].clone(), torch.ones_like(shown.images[:, :3])
        for points, color in ((shown.points, (0.0, 0.7, 0.0)), (said.points, (0.9, 0.0, 0.0))):
            draw_dots(front, points[..., :2], color)
            draw_dots(side, torch.stack([0.5 + points[..., 2], points[..., 1]], dim=-1), color)
        return torch.stack([front, side]).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write the lifter as diffusers does."""
        assert isinstance(module, MarkerLifter)
        module.save_pretrained(folder)

    def _to(self, device: torch.device) -> None:
        """Move the weights of markers and landmarks once, not at every step."""
        if self.markers.vertex_ids.device != device:
            self.markers, self.detected = self.markers.to(device), self.detected.to(device)

    def _batch(
        self, batch: PeopleBatch, pictures: Float[Tensor, "n 4 s s"], cameras: Cameras, framing: crops.Framing
    ) -> LifterBatch:
        """Crops of ``n`` pictures, several of each person in turn."""
        views = len(pictures) // len(batch.people)
        self._to(pictures.device)
        markers = landmark_points(batch.body, self.markers).repeat_interleave(views, dim=0)
        detected = landmark_points(batch.body, self.detected).repeat_interleave(views, dim=0)
        places = crops.crop_points(detected, 0, cameras, framing)[..., :2]
        points = crops.crop_points(markers, ROOT_MARKER, cameras, framing)
        root_depth = to_camera(markers[:, [ROOT_MARKER]], cameras.viewmats)[:, 0, 2]
        assert batch.body.parameters is not None
        return LifterBatch(
            images=crops.reframe(torch.cat([on_white(pictures), pictures[:, 3:]], dim=1), framing),
            landmarks=torch.cat([places, torch.ones_like(places[..., :1])], dim=-1),
            points=points,
            up=crops.crop_up(cameras, framing),
            phenotypes=batch.body.parameters["phenotypes"].repeat_interleave(views, dim=0),
            usable=crops.inside(crops.crop_points(markers, ROOT_MARKER, cameras, whole_picture(framing))),
            metres=root_depth * cameras.width / (cameras.Ks[:, 0, 0] * framing.scale),
        )


LIMB_LANDMARKS = (
    tuple(range(11)), (11, 13, 15, 17, 19, 21), (12, 14, 16, 18, 20, 22), (23, 25, 27, 29, 31), (24, 26, 28, 30, 32),
)  # fmt: skip
"""Landmarks that a detector misplaces together: head, arms, legs."""


def misplaced(landmarks: Float[Tensor, "n 33 3"], generator: torch.Generator) -> Float[Tensor, "n 33 3"]:
    """Landmarks as a detector finds them: each a little off, limbs off together, some not at all, sides exchanged.

    As measured on rendered people: deviations of ``LANDMARK_STD``, of which limbs share a third; a limb in
    thirty is elsewhere, and in a person of forty left and right are taken for each other.
    """
    count, device = len(landmarks), landmarks.device

    def uniform(*shape: int) -> Tensor:
        return draws.uniform(generator, count, *shape)

    def normal(*shape: int) -> Tensor:
        return draws.normal(generator, count, *shape)

    limbs, mirrored, stds = _detector_tables(device)
    shift = normal(len(LIMB_LANDMARKS), 2) * torch.where(uniform(len(LIMB_LANDMARKS), 1) < 1 / 30, 0.06, 0.006)
    places = landmarks[..., :2] + 0.9 * stds[:, None] * normal(NUM_LANDMARKS, 2) + shift[:, limbs]
    exchanged = (uniform(len(LIMB_LANDMARKS)) < 0.01) | (uniform(1) < 0.025)
    # Both limbs of a pair take part: the left one's draw decides.
    exchanged = torch.stack([exchanged[:, i] for i in (0, 1, 1, 3, 3)], dim=1)[:, limbs]
    places = torch.where(exchanged[..., None], places[:, mirrored], places)
    lost = (uniform(len(LIMB_LANDMARKS)) < 0.04)[:, limbs] | (uniform(NUM_LANDMARKS) < 0.04) | (uniform(1) < 0.02)
    return torch.cat([places, landmarks[..., 2:] * (~lost).float()[..., None]], dim=-1)


@lru_cache
def _detector_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Limb of each landmark, its counterpart, and its deviation."""
    limbs = torch.zeros(NUM_LANDMARKS, dtype=torch.int64)
    for index, members in enumerate(LIMB_LANDMARKS):
        limbs[list(members)] = index
    tables = (limbs, torch.tensor(MIRRORED_LANDMARKS), torch.tensor(LANDMARK_STD))
    return tuple(table.to(device) for table in tables)  # type: ignore[return-value]


def whole_picture(framing: crops.Framing) -> crops.Framing:
    """As many framings that change nothing."""
    zeros = torch.zeros_like(framing.roll)
    middle = torch.full_like(framing.source, 0.5)
    return crops.Framing(scale=zeros + 1, roll=zeros, source=middle, target=middle)


def with_photograph(batch: PeopleBatch) -> tuple[Float[Tensor, "n 4 s s"], Cameras]:
    """The photograph and the targets of each person, one after the other."""
    views = torch.cat([batch.images[:, :1], batch.targets], dim=1).flatten(0, 1)
    first, others = batch.cameras, batch.target_cameras
    cameras = Cameras(
        viewmats=torch.cat([first.viewmats[:, :1], others.viewmats], dim=1),
        Ks=torch.cat([first.Ks[:, :1], others.Ks], dim=1),
        width=others.width,
        height=others.height,
    )
    return views, flat_cameras(cameras)


def flat_cameras(cameras: Cameras) -> Cameras:
    """``[b, t]`` cameras as ``[b t]``."""
    return cameras.map(lambda tensor: tensor.flatten(0, 1))


def draw_dots(images: Float[Tensor, "n 3 s s"], places: Float[Tensor, "n k 2"], color: tuple[float, ...]) -> None:
    """Paint squares of 3 pixels at ``places`` (fractions of the side), in place."""
    size = images.shape[-1]
    pixels = (places * size).long().clamp(1, size - 2)
    rows = torch.arange(len(images), device=images.device)[:, None]
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for channel, value in enumerate(color):
                images[rows, channel, pixels[..., 1] + dy, pixels[..., 0] + dx] = value


def _laplace(error: Tensor, scale: Tensor) -> Tensor:
    """Negative log likelihood, without its constant."""
    return error / scale + scale.log()
