"""Typed run configuration: the dataclasses are the schema, YAML files only override it.

Nothing here imports torch, so that a misspelt file is refused in a blink.
"""

import types
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from humansplat.errors import UserError

T = TypeVar("T")
Compiled = Literal["no", "blocks", "stages", "whole"]
"""What of a network is compiled for training; ``training.compilation.compile_network`` says what each means."""
BodyUse = Literal["full", "maps", "tokens", "none"]
"""What a reconstructor uses of the body; ``models.latent_reconstructor.LatentReconstructor`` says what each means."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a person, the same in every picture of that person."""

    mirror: float = 0.5
    """Probability that left and right are swapped, in pictures, cameras and body alike."""
    gain: float = 0.15
    """Each colour channel is multiplied by ``exp(u)``, ``u`` uniform in ``[-gain, gain]``."""
    permute: float = 0.0
    """Probability that the colour channels are shuffled."""
    crop_scale: float = 0.0
    """The given pictures are framed ``exp(u)`` times as large, ``u`` uniform in ``[-crop_scale, crop_scale]``,"""
    crop_shift: float = 0.0
    """and moved along each axis by up to this share of their side."""
    background: float = 0.0
    """Probability that the photograph stands before a background that its mask's edge takes colour from."""
    backgrounds: Path | None = None
    """Folder of pictures to take backgrounds from; without it they are plain, gradients or noise."""
    jpeg: float = 0.0
    """Probability that the photograph has been through JPEG,"""
    jpeg_quality: int = 60
    """of a quality uniform between this and 95."""

    def __post_init__(self) -> None:
        for name in ("mirror", "permute", "background", "jpeg"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name} ({getattr(self, name)}) is a probability: give a number from 0 to 1")
        for name in ("gain", "crop_scale", "crop_shift"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"augment.{name} ({getattr(self, name)}) must be at least 0 and below 1")
        if not 1 <= self.jpeg_quality <= 95:
            raise UserError(f"augment.jpeg_quality ({self.jpeg_quality}) must be from 1 to 95")


@dataclass(frozen=True, kw_only=True)
class ViewShares:
    """How often views of each kind are matched, against each other; kinds that a person lacks do not count.

    Prepared scans have three rings, synthetic people have novel views and close-ups, both have the rig.
    """

    rig: float = 1.0
    """The photograph's first place and the three views orthogonal to it."""
    whole: float = 3.0
    half: float = 3.0
    face: float = 3.0
    novel: float = 2.25
    closeup: float = 0.75

    def __post_init__(self) -> None:
        values = {share.name: getattr(self, share.name) for share in fields(self)}
        if min(values.values()) < 0 or max(values.values()) == 0:
            raise UserError(f"views ({values}) must be at least 0, and one of them above")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How people are read while training goes on; see ``docs/training.md``."""

    roots: tuple[str, ...] = ()
    """Folders to stream from, or folders or URLs of shards; without any ``data.train``."""
    weights: tuple[float, ...] = ()
    """How often people of each of the ``roots`` are drawn, against each other; without any, by their numbers."""
    views: ViewShares = field(default_factory=ViewShares)
    """Which views are matched."""
    ring_inputs: float = 0.5
    """Probability that a scan's photograph is one of its ring of whole bodies instead of view 0."""
    shuffle_buffer: int = 64
    """People that each process that reads shards chooses from."""
    verify: bool = False
    """Compare what is read with its checksums."""

    def __post_init__(self) -> None:
        if self.weights and (len(self.weights) != len(self.roots) or min(self.weights) <= 0):
            raise UserError(f"stream.weights ({list(self.weights)}) must be positive, one for each of stream.roots")
        if not 0 <= self.ring_inputs <= 1:
            raise UserError(f"stream.ring_inputs ({self.ring_inputs}) is a probability: give a number from 0 to 1")
        if self.shuffle_buffer < 1:
            raise UserError(f"stream.shuffle_buffer ({self.shuffle_buffer}) must be at least 1")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the people are and how many of them fit into memory."""

    train: Path = Path("data/train")
    """Folder of people as ``humansplat synthesize`` and ``humansplat prepare`` write it."""
    validation: Path | None = None
    """Folder of held-out people; without it nothing is validated and no best weights are kept."""
    replicate: bool = True
    """Every process of a pool keeps all people, and the same global batch trains alike in any number of processes.
    Otherwise each keeps its own share, and so many times as many people fit into memory."""
    capacity: int = 1_000
    """People kept in memory per process; when more come, the oldest are replaced."""
    validation_people: int = 48
    """The first so many people of the validation folder are used."""
    cache: Path | None = None
    """Folder that a pool keeps its training people in, decoded, so that the next run on them starts in seconds; the
    first run writes it."""
    min_people: int = 1
    """Training starts once the folder has so many people for each process."""
    watch: bool = False
    """Keep adding people that are written to the folder while training runs."""
    image_size: int | None = 256
    """Side of the square pictures in pixels; files of another size are resampled. ``None``: as they are."""
    num_workers: int = 4
    """Threads per process that decode pictures; worker processes for ``stream`` and ``shards``, 0 for none."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    source: Literal["pool", "stream", "shards"] = "pool"
    """``pool``: all people decoded in the device's memory. ``stream``: each step reads the views that it needs.
    ``shards``: the same out of tar files that ``tools/make_shards.py`` wrote."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """How ``stream`` and ``shards`` read."""
    flagged: bool = False
    """Use people, too, whose body does not lie in their scan as the manifest's ``flags`` say. Shards hold whom
    ``tools/make_shards.py`` packed, whatever this says."""
    max_views: int | None = None
    """Most views that a pool keeps of each person: the rig's and an even choice of the others. ``None``: all."""
    body_model: str = "anny"
    """Body model of all people, see ``humansplat.body.models``."""
    body_models: Path | None = None
    """Folder of the SMPL family's files; ``None``: the one that ``HUMANSPLAT_BODY_MODELS`` names."""
    body_gender: Literal["neutral", "male", "female"] = "neutral"
    """Which of the SMPL family's files."""

    def __post_init__(self) -> None:
        for name in ("capacity", "validation_people", "min_people"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} ({getattr(self, name)}) must be at least 1")
        fewest = 1 if self.source == "pool" else 0
        if self.num_workers < fewest:
            raise UserError(f"data.num_workers ({self.num_workers}) must be at least {fewest}")
        if self.min_people > self.capacity:
            raise UserError(f"data.min_people ({self.min_people}) exceeds data.capacity ({self.capacity}): raise one")
        if self.max_views is not None and self.max_views < 4:
            raise UserError(f"data.max_views ({self.max_views}) must be at least 4, the views of the rig")
        if self.source == "pool" and self.stream.roots:
            raise UserError("data.stream.roots are for data.source stream or shards; a pool takes data.train")
        if self.cache is not None and (self.source != "pool" or self.watch):
            raise UserError("data.cache is for data.source pool without data.watch: drop it")
        if self.cache is not None and not self.replicate:
            raise UserError("data.cache holds all people, so it needs data.replicate: set it, or drop the cache")
        if self.source != "pool" and self.watch:
            raise UserError("data.watch is for data.source pool: a stream's people are listed when it starts")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine to nearly nothing, and an average of the weights."""

    lr: float = 4e-4
    """Peak learning rate, after the warm-up."""
    final_lr_fraction: float = 0.01
    """The cosine ends at this fraction of ``lr``."""
    warmup_steps: int = 150
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.05
    """For matrices and kernels only; norms, biases and other vectors are not decayed."""
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    """Of the averaged weights that are validated and shipped; smaller at first, see ``training.ema``."""
    max_bad_steps: int = 20
    """Steps with a non-finite gradient are skipped; so many in a row end the run."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optim.betas ({list(self.betas)}) must be two numbers from 0 to below 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"optim.ema_decay ({self.ema_decay}) must be from 0 to below 1")
        if self.lr <= 0 or self.max_grad_norm <= 0:
            raise UserError(f"optim.lr ({self.lr}) and optim.max_grad_norm ({self.max_grad_norm}) must be positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept so that a run can go on; see ``humansplat.training.checkpoint``."""

    every_minutes: float = 10.0
    keep: int = 2
    """Older checkpoints are deleted."""
    weights: Literal["float32", "float16"] = "float32"
    moments: Literal["float32", "bfloat16", "none"] = "float32"
    """With anything but float32 in both a resumed run differs a little from an unbroken one."""
    max_part_mib: float | None = None
    """Split a checkpoint into files of at most this size."""

    def __post_init__(self) -> None:
        if self.keep < 1 or self.every_minutes <= 0:
            raise UserError(f"checkpoint.keep ({self.keep}) and every_minutes ({self.every_minutes}) must be positive")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Options of the autoencoder task."""

    views_per_person: int = 4
    """Pictures of each drawn person: the batch is ``batch_size`` times as many."""
    ssim_weight: float = 0.2
    divergence_weight: float = 1e-4
    """Of the mean divergence of a latent value from the standard normal: keeps the latents in one range."""


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
    """Noised, then denoised by ``view_model``, in ``denoising_steps``."""
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


@dataclass(frozen=True, kw_only=True)
class MarkerLifterConfig:
    """Constructor arguments of ``models.lifter.MarkerLifter``; see there."""

    fine_width: int = 96
    width: int = 144
    num_heads: int = 4
    num_fine_blocks: int = 2
    num_blocks: int = 3
    num_rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class LifterConfig:
    """Options of the lifter task."""

    model: MarkerLifterConfig = field(default_factory=MarkerLifterConfig)
    views_per_person: int = 4
    """Pictures of each drawn person beside the photograph."""
    absolute_weight: float = 10.0
    """Of the plain error of the markers, crop units."""
    shape_weight: float = 0.3
    up_weight: float = 0.3


@dataclass(frozen=True, kw_only=True)
class SV3DModelConfig:
    """Sizes of a small SV3D, see ``models.sv3d_unet.SV3DUNet``, and of the encoder of its photo."""

    widths: tuple[int, ...] = (32, 64, 32)
    """Of the UNet's levels, multiples of 32 and of ``head_width``; all but the last have attention."""
    layers: int = 1
    """Residual blocks a level on the way down; one more on the way up."""
    head_width: int = 16
    norm_groups: int = 8
    """Of the group norms; with as many as channels a picture's mean colours are lost."""
    noise_width: int = 16
    """Of the embedding of the photo's noise,"""
    angle_width: int = 32
    """and of each angle's."""
    embedding_width: int = 64
    """Of the photo's embedding."""
    encoder_width: int = 64
    encoder_layers: int = 2
    encoder_heads: int = 4
    encoder_image: int = 64
    """Side that the photo is resized to, pixels."""
    encoder_patch: int = 8


@dataclass(frozen=True, kw_only=True)
class SV3DConfig:
    """Options of the task that learns view synthesis."""

    autoencoder: Path = Path("weights/small/vae")
    """Folder of the trained autoencoder; it stays as it is."""
    weights: Path | None = None
    """Folder of an SV3D to fine-tune; ``model`` does not count then."""
    model: SV3DModelConfig = field(default_factory=SV3DModelConfig)
    trainable: tuple[str, ...] = ()
    """Parameters whose name contains one of these are trained; without any, all. ``name[-100:]`` means the last 100
    tensors with the name in it, in the network's order."""
    view_jitter: float = 0.0
    """Share of the people whose unseen views are not the rig's but others of the whole person, at their own azimuths
    and elevations."""
    sigma_mean: float = 0.7
    """Mean of the logarithm of the noise levels,"""
    sigma_std: float = 1.6
    """and its standard deviation."""
    drop: float = 0.05
    """Probability that the network is not told the photo's embedding; and, apart from it, the latent."""
    validation_steps: int = 8
    """Noise levels of the views that are sampled to validate, without guidance."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise UserError(f"sv3d.drop ({self.drop}) is a probability below 1")
        if not 0 <= self.view_jitter <= 1:
            raise UserError(f"sv3d.view_jitter ({self.view_jitter}) is a share: give a number from 0 to 1")
        if self.sigma_std < 0 or self.validation_steps < 1:
            raise UserError(
                f"sv3d.sigma_std ({self.sigma_std}) must be at least 0 and validation_steps "
                f"({self.validation_steps}) above"
            )
        if any(width % 32 or width % self.model.head_width for width in self.model.widths):
            raise UserError(
                f"sv3d.model.widths ({list(self.model.widths)}) must be multiples of 32 and of head_width "
                f"({self.model.head_width})"
            )
        if any(width % self.model.norm_groups for width in self.model.widths):
            raise UserError(f"sv3d.model.norm_groups ({self.model.norm_groups}) must divide all widths")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. ``configs/<task>_<size>.yaml`` holds only what differs from here."""

    task: Literal["autoencoder", "lifter", "reconstruction", "sv3d"]
    output_dir: Path = Path("runs/debug")
    num_steps: int = 100_000
    max_minutes: float | None = None
    """Ends the run, and its learning-rate schedule, after this time if the steps are not done by then."""
    batch_size: int = 16
    """Per process; the global batch is this times processes times ``accumulate``."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one step."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: less memory, about a third more time."""
    compile: Compiled = "no"
    """``blocks``: the network's repeated blocks, alike ones once, and frozen encoders. ``stages``: also what the
    network computes between them. ``whole``: all of the network in one piece, which takes minutes. In files ``false``
    and ``true`` may stand for ``no`` and ``whole``."""
    seed: int = 0
    """Of the first weights and of all that is drawn; at least 0."""
    init_from: Path | None = None
    """Run or checkpoint whose averaged weights a fresh run starts from, or a folder that ``save_pretrained`` wrote."""
    log_every: int = 20
    """Steps between readings of the losses, the clock and the stop signals."""
    validate_every: int = 1_000
    """Steps between validations."""
    best_metric: str = "psnr"
    """Validation figure, larger is better, that decides which averaged weights are kept as ``best``."""
    num_pictures: int = 4
    """People on the sample sheet that every validation logs."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    lifter: LifterConfig = field(default_factory=LifterConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    sv3d: SV3DConfig = field(default_factory=SV3DConfig)

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "accumulate", "log_every", "validate_every", "num_pictures"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed ({self.seed}) must be at least 0")
        if self.task == "reconstruction" and self.reconstruction.keep_latents:
            _check_kept_latents(self.data)
        if self.num_steps <= self.optim.warmup_steps:
            raise UserError(
                f"num_steps ({self.num_steps}) must exceed optim.warmup_steps ({self.optim.warmup_steps}): lower it"
            )
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise UserError(f"max_minutes ({self.max_minutes}) must be positive; leave it out for no limit")
        if self.task == "reconstruction":
            _check_picture(self.data.image_size or 256, self.reconstruction.model)


def _check_picture(size: int, model: ReconstructorConfig) -> None:
    """Refuse pictures that cannot be cut into a reconstructor's tokens, or halved down to one pixel for body maps."""
    token = 8 * max(model.patch, 1)
    if size % token:
        raise UserError(f"data.image_size ({size}) must be a multiple of {token}, the pixels on a side of a token")
    if model.body in ("full", "maps") and size & (size - 1):
        raise UserError(f"data.image_size ({size}) must be a power of two, which body maps need")


def _check_kept_latents(data: DataConfig) -> None:
    """Refuse what changes pictures whose latents are kept.

    Raises:
        UserError: With the remedy.
    """
    for name in ("gain", "permute", "crop_scale", "crop_shift", "background", "jpeg"):
        if getattr(data.augment, name) > 0:
            raise UserError(f"reconstruction.keep_latents needs pictures as they are: set data.augment.{name} to 0")
    if data.source != "pool" or data.watch:
        raise UserError(
            "reconstruction.keep_latents needs a pool that stays: set data.source to pool, data.watch to false"
        )


def load_config(schema: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into ``schema``, a frozen dataclass of dataclasses.

    Args:
        schema: The dataclass; its annotations are what the values are checked against.
        path: The file.
        overrides: Changes after the file, each ``dotted.name=value`` with the value in YAML.

    Raises:
        UserError: If the file is no mapping, a key is not in the schema or a value is not of its type.
        FileNotFoundError: If there is no such file.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path} must be a mapping of names to values")
    for override in overrides:
        _override(values, override)
    if schema is TrainConfig and isinstance(values.get("compile"), bool):
        values["compile"] = "whole" if values["compile"] else "no"
    return cast(T, _build(schema, values, where=str(path), prefix=""))


def save_config(config: object, path: Path) -> None:
    """Write the *resolved* configuration, defaults included; :func:`load_config` reads it back."""
    text = yaml.safe_dump(as_plain(config), sort_keys=False)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def as_plain(config: object) -> dict[str, Any]:
    """A configuration as nested dicts, lists, numbers and text, for YAML and JSON."""
    return cast(dict[str, Any], _plain(asdict(cast(Any, config))))


def _override(values: Any, override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise UserError(f"--set {override!r} is not of the form name=value, for example optim.lr=1.0e-4")
    *path, last = name.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override!r}: {key!r} is a single value, not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: {text!r} is not YAML") from error


def _build(schema: type, values: object, where: str, prefix: str) -> object:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a mapping of names to values")
    hints = get_type_hints(schema)
    unknown = sorted(str(key) for key in values.keys() - hints.keys())
    if unknown:
        raise UserError(f"{where}: {schema.__name__} has no {unknown}; it has {sorted(hints)}")
    required = [f.name for f in fields(schema) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"{where}: {schema.__name__} needs a value for {missing}")
    return schema(**{key: _convert(value, hints[key], where, f"{prefix}{key}") for key, value in values.items()})


def _convert(value: object, hint: Any, where: str, name: str) -> object:
    """Return ``value`` as ``hint`` wants it; only text -> Path, whole -> float and list -> tuple are converted."""
    if is_dataclass(hint):
        return _build(cast(type, hint), value, where, f"{name}.")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [argument for argument in arguments if argument is not type(None)]
        return _convert(value, hint, where, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: {name} = {value!r} is not a list")
        return tuple(_convert(item, arguments[0], where, f"{name}[{i}]") for i, item in enumerate(value))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            raise UserError(f"{where}: {name} = {value!r} is not one of {list(arguments)}")
    elif type(value) is not hint:
        remedy = "; YAML reads 1e-4 as text, write 1.0e-4" if hint is float and isinstance(value, str) else ""
        raise UserError(f"{where}: {name} = {value!r} is not {hint.__name__}{remedy}")
    return value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
