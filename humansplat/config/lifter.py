"""Options of the lifter task."""

from dataclasses import dataclass, field


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
