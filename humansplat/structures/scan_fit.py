"""What fitting a body to a scan gives."""

from humansplat.structures.base import TensorStruct
from humansplat.structures.body import PosedBody


class ScanFit(TensorStruct):
    """A body fitted to a scan, and how well it fits."""

    body: PosedBody
    """In the frame of the scan."""
    facing: float
    """Azimuth to which the trunk faces, radians: 0 is +Z, positive towards +X."""
    landmark_error: float
    """Mean distance of the body's markers to those that were triangulated, or to those of the given start, metres."""
    coverage: float
    """Share of the scan's surface that is near the body."""
    outside: float
    """Share of the body that lies outside the scan."""
    flags: tuple[str, ...] = ()
    """Why the fit is not to be trusted, one sentence each; empty: it is."""
