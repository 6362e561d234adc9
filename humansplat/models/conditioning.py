"""What the reconstruction transformer needs to know of a body, for any body model."""

import torch
from torch import Tensor

from humansplat.models.windows import farthest_points
from humansplat.render.body_maps import BodyMaps, SurfaceSamples, rasterize_body, sample_surface
from humansplat.structures import Cameras, PosedBody


class BodyConditioner:
    """Rasterises bodies and picks their token vertices; remembers the choice for each body model.

    Args:
        num_tokens: Vertices that become tokens.
        map_size: Side of the body maps, pixels.
    """

    def __init__(self, *, num_tokens: int, map_size: int) -> None:
        self.num_tokens, self.map_size = num_tokens, map_size
        self._known: dict[tuple[str, int, torch.device], tuple[SurfaceSamples, Tensor]] = {}

    def __call__(self, body: PosedBody, cameras: Cameras) -> tuple[BodyMaps, Tensor]:
        """Body maps ``[b, v]`` through ``cameras`` ``[b, v]``, and the token vertices' indices ``[j]``."""
        key = (body.model, body.vertices.shape[-2], body.vertices.device)
        if key not in self._known:
            samples = sample_surface(body.canonical, body.faces)
            used = body.faces.unique().cpu()  # a file's mesh may hold vertices that no face uses
            tokens = used[farthest_points(body.canonical.cpu()[used], self.num_tokens)]
            self._known[key] = (samples, tokens.to(body.vertices.device))
        samples, tokens = self._known[key]
        return rasterize_body(body, cameras, samples, size=self.map_size), tokens
