"""Body markers as a network sees them in one crop."""

from jaxtyping import Float
from torch import Tensor

from humansplat.structures.base import TensorStruct


class LiftedMarkers(TensorStruct):
    """What the lifter says of a crop. Scales are those of Laplace distributions: mean absolute errors."""

    points: Float[Tensor, "*b k 3"]
    """Crop units: ``u`` and ``v`` in sides of the crop from its top left corner, and depth as
    ``focal * (z - z_root) / z_root`` with the focal length in sides of the crop; positive away from the camera."""
    point_scales: Float[Tensor, "*b k 2"]
    """Across the picture, and in depth."""
    phenotypes: Float[Tensor, "*b p"]
    phenotype_scales: Float[Tensor, "*b p"]
    up: Float[Tensor, "*b 3"]
    """Unit vector against gravity in the camera's axes (x right, y down, z away)."""
    up_scale: Float[Tensor, "*b"]
