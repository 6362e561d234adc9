"""One photograph of a person in; a complete, viewable, exportable 3D Gaussian person out.

The names below load their modules at first use, so that ``import humansplat`` stays free of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from humansplat.errors import UserError as UserError
    from humansplat.pipelines.reconstruction import Reconstruction as Reconstruction
    from humansplat.pipelines.reconstructor import Reconstructor as Reconstructor
    from humansplat.structures import Cameras as Cameras
    from humansplat.structures import Gaussians as Gaussians
    from humansplat.structures import Mesh as Mesh
    from humansplat.structures import PosedBody as PosedBody

_MODULES = {
    "Cameras": "humansplat.structures",
    "Gaussians": "humansplat.structures",
    "Mesh": "humansplat.structures",
    "PosedBody": "humansplat.structures",
    "Reconstruction": "humansplat.pipelines.reconstruction",
    "Reconstructor": "humansplat.pipelines.reconstructor",
    "UserError": "humansplat.errors",
}

__all__ = ["Cameras", "Gaussians", "Mesh", "PosedBody", "Reconstruction", "Reconstructor", "UserError"]


def __getattr__(name: str) -> object:
    """Load a public name at first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'humansplat' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted([*__all__, "__version__"])
