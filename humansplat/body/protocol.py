"""What every body model offers, and the door through which models are had by name."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from humansplat.errors import UserError
from humansplat.structures.body import PosedBody


@runtime_checkable
class BodyModel(Protocol):
    """A surface that shape parameters form and a skeleton poses; metres, +Y up, facing +Z at rest."""

    name: str
    """The name that ``load_body_model`` and ``PosedBody.model`` use."""
    parameter_shapes: Mapping[str, tuple[int, ...]]
    """The parameters of one body by the model's own names, e.g. ``{"rotations": (163, 3), ...}``."""
    joint_names: tuple[str, ...]
    joint_parents: tuple[int, ...]
    """Parent of each joint; -1 marks the root, which is joint 0."""
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "t 2"] | None
    uv_faces: Int[Tensor, "f 3"] | None
    weights: Float[Tensor, "v j"]
    """Skinning weights; each row sums to 1."""
    parts: Int[Tensor, " v"]
    """Part labels (``humansplat.body.parts``)."""
    canonical: Float[Tensor, "v 3"]
    """The mean adult in the rest pose, standing on the ground."""

    def neutral(self, *batch: int) -> dict[str, Tensor]:
        """Parameters of the mean adult in the rest pose, by name."""
        ...

    def pose(self, parameters: Mapping[str, Tensor]) -> PosedBody:
        """The posed body of named parameters ``[*batch, *parameter_shapes[name]]``; missing ones are neutral."""
        ...

    def subset(self, vertex_ids: Int[Tensor, " k"]) -> "BodyModel":
        """The same model of a few of its vertices: what a fit that looks only at those should pose."""
        ...


def load_body_model(name: str = "anny") -> BodyModel:
    """Load a body model by its name.

    Raises:
        UserError: If there is no model of that name.
    """
    if name == "anny":
        from humansplat.body.anny import AnnyBody

        return AnnyBody.load()
    raise UserError(f"there is no body model named {name!r}; use 'anny'")
