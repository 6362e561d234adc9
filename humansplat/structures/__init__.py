"""Records that the stages of the library pass to each other."""

from humansplat.structures.base import TensorStruct
from humansplat.structures.body import PosedBody
from humansplat.structures.cameras import Cameras
from humansplat.structures.gaussians import Gaussians, concatenate
from humansplat.structures.markers import LiftedMarkers
from humansplat.structures.mesh import Mesh
from humansplat.structures.scan_fit import ScanFit

__all__ = ["Cameras", "Gaussians", "LiftedMarkers", "Mesh", "PosedBody", "ScanFit", "TensorStruct", "concatenate"]
