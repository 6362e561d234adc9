"""Options of the reconstruction task."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from humansplat.errors import UserError

BodyUse = Literal["full", "maps", "tokens", "none"]
"""What a reconstructor uses of the body; ``models.latent_reconstructor.LatentReconstructor`` says what each means."""


@dataclass(frozen=True, kw_only=True)
class ReconstructorConfig:
    """Constructor arguments of ``models.latent_reconstructor.LatentReconstructor``; see there."""

    latent_channels: int = 4
    """Training sets it to what ``reconstruction.space`` and the autoencoder give."""
    patch: int = 1
    num_views: int = 4
    width: int = 256
    num_heads: int = 4
    num_intra_layers: int = 4
    num_body_layers: int = 1
    num_inter_layers: int = 3
    window: float = 2.0
    num_body_tokens: int | None = 1536
    body: BodyUse = "full"
    kept_cells: int | None = 384
    unseen_splats: int = 4
    body_splats: int = 2
    photo_patches: bool = False
    max_offset: float = 0.4


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """Standard deviations of the errors that ``body.noise`` draws, about as a fit from one picture is wrong.

    Of a bone's turn in the world, whatever its parent's, degrees: ``depth`` about each of the two axes across the line
    of sight, ``picture`` about it.
    """

    limb_depth: float = 9.0
    """Upper and lower arms and legs."""
    limb_picture: float = 2.0
    extremity_depth: float = 10.0
    """Hands, feet and head."""
    extremity_picture: float = 5.0
    chest_depth: float = 5.0
    """The chest; the spine between it and the hips bends evenly."""
    chest_picture: float = 1.8
    fingers: float = 7.0
    """Each joint of a finger against its parent, about any axis."""
    root_lean: float = 3.0
    """The hips, degrees: towards the camera or away from it,"""
    root_turn: float = 6.0
    """about the vertical of the picture,"""
    root_roll: float = 1.0
    """and in the picture."""
    phenotypes: float = 0.06
    """Of a range of 1."""
    across: float = 0.007
    """Place of the root joint along each axis of the picture, metres."""
    depth: float = 0.04
    """Distance of the root joint, metres; it moves along its ray."""

    def __post_init__(self) -> None:
        for level in fields(self):
            if not getattr(self, level.name) >= 0:
                raise UserError(f"noise.{level.name} ({getattr(self, level.name)}) must be at least 0")


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """The perceptual distance of the losses (HumanSplat, Eqs. 5 and 6); see ``docs/training.md``."""

    kind: Literal["none", "lpips", "encoder"] = "none"
    """``lpips``: VGG16's published weights, from ``folder``. ``encoder``: features of ``reconstruction.autoencoder``.
    Never chosen by what is there."""
    folder: Path | None = None
    """Of the files that ``lpips`` needs; ``humansplat.metrics.lpips`` says which."""
    weight: float = 0.0
    """Of the distance between whole target pictures (Eq. 6); 0 leaves it out."""
    num_pictures: int = 1
    """Target pictures of each person and step that it is taken of, drawn at random."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.num_pictures < 1:
            raise UserError(
                f"perceptual.weight ({self.weight}) must be at least 0 and num_pictures ({self.num_pictures}) above"
            )
        if self.kind == "none" and self.weight > 0:
            raise UserError(f"perceptual.weight is {self.weight} but kind is none: choose lpips or encoder")
        if (self.kind == "lpips") != (self.folder is not None):
            raise UserError(
                f"perceptual.kind is {self.kind} and folder is {self.folder}: lpips needs the folder of its weights, "
                "nothing else does"
            )


@dataclass(frozen=True, kw_only=True)
class HierarchicalConfig:
    """The hierarchical semantic loss (HumanSplat, Eq. 5); see ``docs/training.md``."""

    weight: float = 0.0
    """Of the whole; 0 leaves it out."""
    levels: tuple[int, ...] = (32, 64, 128)
    """Sides of the crops at the levels, pixels, ascending; each divides the last."""
    level_weights: tuple[float, ...] = ()
    """Of the levels; without any 1 each."""
    perceptual_weight: float = 1.0
    """Of the perceptual term against the squared error, where ``perceptual.kind`` is not ``none``."""
    camera_crops: int = 6
    """Heads and hands that get cameras of their own, a person and step: drawn among those that are seen."""
    part_crops: int = 8
    """Crops of other parts, likewise."""
    perceptual_crops: int = 2
    """Crops of either kind that the perceptual term is taken of, likewise."""
    margin: float = 0.2
    """Around a part's box, as a fraction of its larger side: room for hair and clothes."""
    map_size: int = 128
    """Side of the part maps, pixels."""
    min_pixels: int = 4
    """Parts with fewer pixels in the part map count as not seen."""
    match_sharpness: bool = True
    """Where a box has fewer pixels in the truth than in the crop, what its own camera sees loses the same detail."""

    def __post_init__(self) -> None:
        levels = self.levels
        if not levels or levels[0] < 16 or list(levels) != sorted(set(levels)) or any(levels[-1] % r for r in levels):
            raise UserError(f"hierarchical.levels ({list(levels)}) must ascend from at least 16 and divide the last")
        if self.level_weights and len(self.level_weights) != len(levels):
            raise UserError(f"hierarchical.level_weights ({list(self.level_weights)}) must be {len(levels)} numbers")
        for name in ("weight", "perceptual_weight", "margin"):
            if getattr(self, name) < 0:
                raise UserError(f"hierarchical.{name} ({getattr(self, name)}) must be at least 0")
        for name in ("camera_crops", "part_crops", "perceptual_crops", "map_size", "min_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"hierarchical.{name} ({getattr(self, name)}) must be at least 1")


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """What the latents of a person's unseen views are while training, as shares against each other.

    The photo's own latent is always the clean one. For ``reconstruction.num_inputs`` 4; see ``training.latents``.
    """

    clean: float = 1.0
    noised: float = 0.0
    """With normal noise added."""
    diffused: float = 0.0
    """Noised, then denoised by ``view_model``, in ``denoising_steps``. A view model that was distilled into few steps
    makes them from noise alone, in its own."""
    missing: float = 0.0
    """The network is given the photo's alone."""
    sigma_mean: float = 0.03
    """Mean of the logarithm of the noise's standard deviation, of noised and diffused latents, one a person;"""
    sigma_std: float = 0.2
    """and its standard deviation. Far above 1 nothing of the truth is left: what is denoised then is the view model's
    own, as at inference, and takes several steps."""
    denoising_steps: int = 1
    """Steps from the drawn noise level down."""
    view_model: Path | None = None
    """Folder of a trained view model; it stays as it is."""
    graphs: bool = True
    """On a GPU: replay the view model's passes from CUDA graphs, which keep the memory of one."""

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("clean", "noised", "diffused", "missing")}
        if min(shares.values()) < 0 or max(shares.values()) == 0:
            raise UserError(f"reconstruction.latents ({shares}) must be at least 0, and one of them above")
        if self.diffused > 0 and self.view_model is None:
            raise UserError(
                f"reconstruction.latents.diffused ({self.diffused}) needs a view model: give its folder as "
                "reconstruction.latents.view_model, or set the share to 0"
            )
        if self.sigma_std < 0:
            raise UserError(f"reconstruction.latents.sigma_std ({self.sigma_std}) must be at least 0")
        if self.denoising_steps < 1:
            raise UserError(f"reconstruction.latents.denoising_steps ({self.denoising_steps}) must be at least 1")

    @property
    def only_clean(self) -> bool:
        """Whether nothing is noised, diffused or missing."""
        return self.noised == self.diffused == self.missing == 0


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Options of the reconstruction task."""

    autoencoder: Path = Path("weights/small/vae")
    """Folder of the trained autoencoder; it stays as it is. Not read in pixel space."""
    num_inputs: Literal[1, 4] = 1
    """Views whose true latents the network is given: the photo's, or all four of the rig."""
    space: Literal["latent", "pixel"] = "latent"
    """``pixel``: cells of 8 x 8 pixels, unshuffled to 192 channels, instead of the autoencoder's latents; the model's
    ``latent_channels`` follows."""
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    """What the latents of the unseen views are while training."""
    keep_latents: bool = False
    """Encode the given pictures of all people once, mirrored and not, instead of in every step; needs people who stay
    in memory, and nothing of ``data.augment`` but ``mirror``."""
    model: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    num_targets: int = 4
    """Pictures to be matched, a person and step."""
    photo_weight: float = 0.0
    """Probability that one of them is the photograph's own view, besides its chance among all views."""
    wrong_bodies: float = 0.5
    """Share of the people whose body is perturbed, as by a fit from one picture."""
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    """How much the perturbed ones are, times a factor that is drawn for each from 0 to 1.5."""
    absolute_weight: float = 0.1
    mask_weight: float = 0.5
    ssim_weight: float = 0.1
    spill_weight: float = 0.0
    """Of the mean opacity outside the true mask, which clears faint floaters; 0 leaves it out."""
    opacity_weight: float = 0.0
    """Of the penalty on half-opaque splats, against haze; 0 leaves it out."""
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    hierarchical: HierarchicalConfig = field(default_factory=HierarchicalConfig)

    def __post_init__(self) -> None:
        for name in ("photo_weight", "wrong_bodies"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"reconstruction.{name} ({getattr(self, name)}) is a probability: give a number from 0 to 1"
                )
        if self.model.num_views != 4:
            raise UserError(f"reconstruction.model.num_views ({self.model.num_views}) must be 4, the views of the rig")
        if self.num_inputs == 1 and not self.latents.only_clean:
            raise UserError("reconstruction.latents are mixed only with reconstruction.num_inputs=4: set it")
        if self.space == "pixel" and self.keep_latents:
            raise UserError("reconstruction.keep_latents is for latents: set it to false in pixel space")
        if self.space == "pixel" and self.latents.diffused > 0:
            raise UserError("reconstruction.latents.diffused is for latents: a view model knows no pixel space")
