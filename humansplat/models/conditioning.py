"""What the reconstruction transformer needs to know of a body, for any body model."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.config import BodyUse
from humansplat.geometry.sampling import farthest_points
from humansplat.render.body_maps import BodyMaps, SurfaceSamples, rasterize_body, sample_surface, vertex_normals
from humansplat.structures import Cameras, PosedBody


class BodyConditions(NamedTuple):
    """The arguments of :class:`humansplat.models.latent_reconstructor.LatentReconstructor` that a body gives."""

    maps: BodyMaps | None
    """``[b, v]``; ``None`` where the network reads none."""
    token_ids: Int[Tensor, " j"] | None
    """The vertices that become tokens; ``None`` where the network has none."""
    token_normals: Float[Tensor, "b j 3"] | None
    """Their unit normals, world frame."""


class BodyConditioner:
    """Rasterises bodies and picks their token vertices; remembers the choice for each body model.

    Args:
        num_tokens: Vertices that become tokens; ``None`` takes all that a face uses.
        map_size: Side of the body maps, pixels.
        body: What of it the network uses; what it does not is left out.
    """

    def __init__(self, *, num_tokens: int | None, map_size: int, body: BodyUse = "full") -> None:
        self.num_tokens, self.map_size, self.body = num_tokens, map_size, body
        self._known: dict[tuple[str, int, torch.device], tuple[SurfaceSamples, Tensor]] = {}

    def __call__(self, body: PosedBody, cameras: Cameras) -> BodyConditions:
        """See bodies ``[b]`` through ``cameras`` ``[b, v]``."""
        if self.body == "none":
            return BodyConditions(None, None, None)
        key = (body.model, body.vertices.shape[-2], body.vertices.device)
        if key not in self._known:
            samples = sample_surface(body.canonical, body.faces)
            used = body.faces.unique().cpu()  # a file's mesh may hold vertices that no face uses
            if self.num_tokens is not None:
                used = used[farthest_points(body.canonical.cpu()[used], self.num_tokens)]
            self._known[key] = (samples, used.to(body.vertices.device))
        samples, tokens = self._known[key]
        normals = vertex_normals(body.vertices, body.faces)
        maps = None
        if self.body != "tokens":
            maps = rasterize_body(body, cameras, samples, size=self.map_size, normals=normals)
        return BodyConditions(maps, tokens, normals[:, tokens])
