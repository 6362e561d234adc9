"""What every body model offers; ``humansplat.body.models`` has the models by name."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from humansplat.structures.body import PosedBody


@runtime_checkable
class BodyModel(Protocol):
    """A surface that shape parameters form and a skeleton poses; metres, +Y up, facing +Z at rest."""

    @property
    def name(self) -> str:
        """The name that ``load_body_model`` and ``PosedBody.model`` use."""
        ...

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The parameters of one body by the model's own names, e.g. ``{"rotations": (163, 3), ...}``."""
        ...

    @property
    def joint_names(self) -> tuple[str, ...]: ...

    @property
    def joint_parents(self) -> tuple[int, ...]:
        """Parent of each joint; -1 marks the root, which is joint 0."""
        ...

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """Vertex indices, counter-clockwise seen from outside."""
        ...

    @property
    def uvs(self) -> Float[Tensor, "t 2"] | None:
        """Texture coordinates in ``[0, 1]``, origin at the bottom left."""
        ...

    @property
    def uv_faces(self) -> Int[Tensor, "f 3"] | None:
        """Indices into ``uvs``, one a corner."""
        ...

    @property
    def weights(self) -> Float[Tensor, "v j"]:
        """Skinning weights; each row sums to 1."""
        ...

    @property
    def parts(self) -> Int[Tensor, " v"]:
        """Part labels (``humansplat.body.parts``)."""
        ...

    @property
    def canonical(self) -> Float[Tensor, "v 3"]:
        """The mean adult in the default body's rest pose, standing on the ground."""
        ...

    def neutral(self, *batch: int) -> dict[str, Tensor]:
        """Parameters of the mean adult in the rest pose, by name."""
        ...

    def pose(self, parameters: Mapping[str, Tensor]) -> PosedBody:
        """The posed body of named parameters ``[*batch, *parameter_shapes[name]]``; missing ones are neutral."""
        ...

    def subset(self, vertex_ids: Int[Tensor, " k"]) -> "BodyModel":
        """The same model of a few of its vertices: what a fit that looks only at those should pose."""
        ...
