"""What people a run learns from, and how they are changed."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from humansplat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a person, the same in every picture of that person."""

    mirror: float = 0.5
    """Probability that left and right are swapped, in pictures, cameras and body alike."""
    gain: float = 0.15
    """Each colour channel is multiplied by ``exp(u)``, ``u`` uniform in ``[-gain, gain]``."""
    permute: float = 0.0
    """Probability that the colour channels are shuffled."""
    saturate: float = 0.0
    """Colours less their shade are multiplied by ``1 + u``, ``u`` uniform in ``[0, saturate]``."""
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
        if self.saturate < 0:
            raise UserError(f"augment.saturate ({self.saturate}) must be at least 0")
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
