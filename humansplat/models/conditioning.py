"""What the reconstruction transformer needs to know of a body, for any body model."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.geometry.sampling import farthest_points
from humansplat.render.body_maps import BodyMaps, SurfaceSamples, rasterize_body, sample_surface, vertex_normals
from humansplat.structures import Cameras, PosedBody


class BodyConditions(NamedTuple):
    """The arguments of :class:`humansplat.models.latent_reconstructor.LatentReconstructor` that a body gives."""

    maps: BodyMaps
    """``[b, v]``."""
    token_ids: Int[Tensor, " j"]
    """The vertices that become tokens."""
    token_normals: Float[Tensor, "b j 3"]
    """Their unit normals, world frame."""


class BodyConditioner:
    """Rasterises bodies and picks their token vertices; remembers the choice for each body model.

    Args:
        num_tokens: Vertices that become tokens.
        map_size: Side of the body maps, pixels.
    """

    def __init__(self, *, num_tokens: int, map_size: int) -> None:
        self.num_tokens, self.map_size = num_tokens, map_size
        self._known: dict[tuple[str, int, torch.device], tuple[SurfaceSamples, Tensor]] = {}

    def __call__(self, body: PosedBody, cameras: Cameras) -> BodyConditions:
        """See bodies ``[b]`` through ``cameras`` ``[b, v]``."""
        key = (body.model, body.vertices.shape[-2], body.vertices.device)
        if key not in self._known:
            samples = sample_surface(body.canonical, body.faces)
            used = body.faces.unique().cpu()  # a file's mesh may hold vertices that no face uses
            tokens = used[farthest_points(body.canonical.cpu()[used], self.num_tokens)]
            self._known[key] = (samples, tokens.to(body.vertices.device))
        samples, tokens = self._known[key]
        normals = vertex_normals(body.vertices, body.faces)
        maps = rasterize_body(body, cameras, samples, size=self.map_size, normals=normals)
        return BodyConditions(maps, tokens, normals[:, tokens])
