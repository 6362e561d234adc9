"""What a process loads once to prepare scans: the fitter with its body model, and the landmark detector."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from humansplat.body.models import load_body_model
from humansplat.data.scans.person import ScanTask, ScanTools
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, ScanFit

ToolsFactory = Callable[[ScanTask, Path | None], ScanTools]
"""Loads the tools, once a process; importable by name, as ``multiprocessing`` asks."""


class FittingTools:
    """``ScanFitter`` and the pose graph that it uses."""

    def __init__(self, task: ScanTask, models: Path | None) -> None:
        """Load them, and what they need, which takes seconds.

        Args:
            task: Says which body model.
            models: Folder of the model files of SMPL's family.

        Raises:
            UserError: If files of the model, the pose graph or the lifter are missing.
        """
        from humansplat.pipelines.scan_fitting import ScanFitter

        given = None
        if task.body_model != "anny":
            given = load_body_model(task.body_model, folder=models, gender=task.gender)
        self.fitter = ScanFitter(given)

    def fit(self, meshes: Sequence[ShadedMesh], start: PosedBody | None) -> ScanFit:
        """Fit the body model to a scan."""
        return self.fitter(meshes, start=start)

    def detect(self, rgba: Float[Tensor, "c 4 s s"]) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks of pictures."""
        from humansplat.pipelines.scan_views import detect

        return detect(rgba, self.fitter.graph)
