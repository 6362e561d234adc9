"""Options of the SV3D task."""

from dataclasses import dataclass, field
from pathlib import Path

from humansplat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SV3DModelConfig:
    """Sizes of a small SV3D, see ``models.sv3d_unet.SV3DUNet``, and of the encoder of its photo."""

    widths: tuple[int, ...] = (32, 64, 64)
    """Of the UNet's levels, multiples of 32 and of ``head_width``,"""
    attention: tuple[bool, ...] = (False, True, False)
    """and whether each has attention; between the way down and the way up there is one in any case."""
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
class DistillConfig:
    """A student of a view model; ``training.view_distillation`` says what it learns.

    There is none without ``teacher``. Of a teacher that was distilled into few steps itself, its own sampling takes
    the place of all but ``steps``.
    """

    teacher: Path | None = None
    """Folder of the view model to learn from. The student begins with its weights, if there are none in
    ``sv3d.weights``."""
    guidance: tuple[float, ...] = (1.0, 2.5)
    """Of the teacher: at the front and at the back."""
    steps: int | None = 4
    """Of the student; null: the guidance is learned alone, at all noise levels, for any number of steps."""
    teacher_steps: int = 12
    """From noise to latents, a multiple of ``steps``. The student's noise levels are every so-manieth of the
    teacher's."""
    sigma_max: float = 80.0
    """The highest noise level,"""
    sigma_min: float = 0.02
    """and the teacher's lowest above 0."""

    def __post_init__(self) -> None:
        if len(self.guidance) != 2:
            raise UserError(
                f"sv3d.distill.guidance ({list(self.guidance)}) must be two numbers: at the front and back"
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(
                f"sv3d.distill.sigma_min ({self.sigma_min}) must be above 0 and below sigma_max ({self.sigma_max})"
            )
        check_pieces(self.steps, self.teacher_steps)


def check_pieces(steps: int | None, teacher_steps: int) -> None:
    """Refuse a number of a student's steps that a teacher's do not make up.

    Raises:
        UserError: With both numbers.
    """
    if teacher_steps < 1 or (steps is not None and (steps < 1 or teacher_steps % steps)):
        raise UserError(
            f"sv3d.distill.steps ({steps}) must divide the teacher's steps ({teacher_steps}): give such a one, or null"
        )


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
    turn: float = 0.0
    """Share of the people of whose rig another view than the first, each as often, is taken as the photo; 0.75: all
    four alike. Those of ``view_jitter`` are not turned."""
    keep_latents: bool = False
    """Encode the rig's views of all people once, mirrored and not, instead of in every step; people who come while
    training goes on (``data.watch``) are encoded sixteen at a time. Needs a pool, no ``view_jitter``, and nothing of
    ``data.augment`` but ``mirror`` and colours."""
    keep_variants: int = 4
    """In how many colours, drawn as ``data.augment`` says, each person is kept."""
    sigma_mean: float = 0.7
    """Mean of the logarithm of the noise levels,"""
    sigma_std: float = 1.6
    """and its standard deviation."""
    drop: float = 0.05
    """Probability that the network is not told the photo's embedding; and, apart from it, the latent."""
    drop_both: float = 0.0
    """Probability that it is told neither, beside that: what guidance goes away from. Two that are left out apart from
    each other hardly teach it to a fresh network."""
    validation_steps: int = 8
    """Noise levels of the views that are sampled to validate, without guidance."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Learn from another view model instead of the truth."""

    def __post_init__(self) -> None:
        for name in ("drop", "drop_both"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"sv3d.{name} ({getattr(self, name)}) is a probability below 1")
        for name in ("view_jitter", "turn"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"sv3d.{name} ({getattr(self, name)}) is a share: give a number from 0 to 1")
        if self.keep_latents and self.view_jitter > 0:
            raise UserError("sv3d.keep_latents is of the rig's views alone: set sv3d.view_jitter to 0")
        if self.keep_variants < 1:
            raise UserError(f"sv3d.keep_variants ({self.keep_variants}) must be at least 1")
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
        if len(self.model.attention) != len(self.model.widths):
            raise UserError(
                f"sv3d.model.attention ({list(self.model.attention)}) must say for each of the "
                f"{len(self.model.widths)} widths whether there is attention"
            )
        if any(width % self.model.norm_groups for width in self.model.widths):
            raise UserError(f"sv3d.model.norm_groups ({self.model.norm_groups}) must divide all widths")
