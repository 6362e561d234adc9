"""A parametric body in a pose, as every stage after the body fit sees it."""

from jaxtyping import Float, Int
from torch import Tensor

from humansplat.structures.base import TensorStruct


class PosedBody(TensorStruct):
    """Surface and joints of one posed body, of whatever body model."""

    vertices: Float[Tensor, "*batch v 3"]
    """World frame, metres."""
    joints: Float[Tensor, "*batch j 3"]
    """World frame, metres; order of the model's skeleton."""
    canonical: Float[Tensor, "v 3"]
    """The mean adult in the default body's rest pose, metres: names each point of the skin, the same way for every
    person and for every body model."""
    faces: Int[Tensor, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    parts: Int[Tensor, " v"]
    """Part label of each vertex (``humansplat.body.parts``)."""
    model: str = "anny"
    """Name of the body model."""
    gender: str | None = None
    """Which of the model's files it is: ``neutral``, ``male`` or ``female``; ``None`` for a model that has but one."""
    parameters: dict[str, Tensor] | None = None
    """The model's own parameters, by its own names; ``None`` when only the surface is known."""
