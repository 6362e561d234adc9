"""Fit a body model to a scan of a clothed person, standing anywhere and turned any way."""

from collections.abc import Sequence

from humansplat.body.models import load_body_model
from humansplat.body.protocol import BodyModel
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, TensorStruct


class ScanFit(TensorStruct):
    """A body fitted to a scan, and how well it fits."""

    body: PosedBody
    """In the frame of the scan."""
    facing: float
    """Azimuth to which the trunk faces, radians: 0 is +Z, positive towards +X."""
    landmark_error: float
    """Mean distance of the body's landmarks to those that were triangulated, metres."""
    coverage: float
    """Share of the scan's surface that is near the body."""
    outside: float
    """Share of the body that lies outside the scan."""
    flags: tuple[str, ...] = ()
    """Why the fit is not to be trusted, one sentence each; empty: it is."""


class ScanFitter:
    """Fits a body model to scans; loads what it needs once.

    Args:
        model: The body model; the default body if none is given. Any that keeps the body protocol.
    """

    def __init__(self, model: BodyModel | None = None) -> None:
        self.model = model or load_body_model("anny")

    def __call__(self, meshes: Sequence[ShadedMesh], *, start: PosedBody | None = None) -> ScanFit:
        """Fit.

        Args:
            meshes: The scan's pieces: metres, +Y up, any place, any turn about the vertical.
            start: A fit to begin from, in the frame of the scan: landmarks are not looked for.

        Raises:
            UserError: If the scan is no surface, or not of a person's size.
        """
        raise NotImplementedError
