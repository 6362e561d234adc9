"""HumanSplat's latent reconstruction transformer: view latents and a body -> Gaussians.

Shapes: b batch, v views (the photo's, and others at even turns around the person), g latent cells on a side of a view,
t kept tokens of a view, j body tokens, d width, n splats.

Reference: Pan et al., "HumanSplat: Generalizable Single-Image Human Gaussian Splatting with
Structure Priors", NeurIPS 2024, sections 3.4 and 3.5. Where this differs from the paper or its release:

* A splat sits on its pixel's ray, at the body's distance plus a bounded offset, where the release
  predicts absolute positions: what the network has to learn shrinks from a metre to a few
  centimetres of cloth and hair, and a splat cannot leave the pixel that it explains.
* A token is told what of the body its rays meet (depth, normal, canonical position), besides what it
  finds by attention; tokens far from the person are dropped.
* The photo's splats take the photo's own colours and its mask: a latent of 8 x 8 pixels need not
  carry what is known.
* Body tokens carry splats of their own, on the skin. They close what no view sees, such as a chest
  behind an arm.
* Nothing stays outside the cone of the photo's silhouette.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from humansplat.config import BodyUse
from humansplat.errors import UserError
from humansplat.models import splat_head
from humansplat.models.cells import TokenGrid, cell_centers, nearest_cells
from humansplat.models.layers import BodyAttentionBlock, SelfAttentionBlock
from humansplat.models.scene import Scene, make_scene
from humansplat.models.tokens import BODY_CHANNELS, body_features, fill_latents, view_channels, view_features
from humansplat.models.windowed_attention import Windows, plan_windows
from humansplat.models.windows import project_to_cells
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, Gaussians, PosedBody

NUM_VIEWS = 4
"""Of the rig that people are drawn with: the photo's and the three orthogonal to it."""


def _full_precision(device: torch.device) -> torch.autocast:
    """Camera algebra in bf16 would be off by centimetres."""
    return torch.autocast(device.type, enabled=False)


class Stages(NamedTuple):
    """What a forward pass computes without parameters, as it is called: as it is written, or compiled."""

    make_scene: Callable[..., Scene] = make_scene
    view_features: Callable[..., Tensor] = view_features
    body_features: Callable[..., Tensor] = body_features
    decode: Callable[..., Gaussians] = splat_head.decode


class LatentReconstructor(ModelMixin, ConfigMixin):
    """Predict pixel-aligned splats of several views, and a few on the body's skin.

    Args:
        latent_channels: Channels of the latents: 4 of the usual autoencoders, ``3 * cell ** 2`` for pictures whose
            pixels are unshuffled.
        cell: Pixels on a side of a latent cell: the VAE's downsampling factor.
        patch: Latent cells on a side of a token.
        num_views: The photo's view and others.
        width: Token width.
        num_heads: Attention heads.
        num_intra_layers: Self-attention blocks over the tokens of all views.
        num_body_layers: Self-attention blocks over the body tokens.
        num_inter_layers: Blocks of windowed cross-attention to the body, self-attention, feed-forward.
        window: ``K``: a token sees the body tokens that project into ``K x K`` latent cells around its centre;
            ``inf`` for all of the picture.
        num_body_tokens: Body vertices that become tokens, spread evenly over the skin; ``None`` takes all.
        body: What of the body is used. ``full``: body maps, cross-attention to body tokens, splats on the skin, and
            the rays' splats begin at the body. ``maps``: the same without cross-attention. ``tokens``: cross-attention
            alone, as in the paper. ``none``: nothing. Without maps the rays' splats begin at the rig's axis.
        kept_cells: Tokens a view that stay, those nearest to the person; ``None`` keeps all.
        unseen_splats: Splats on a side of a latent cell of a view without a photo. The photo's own have
            one for each pixel.
        body_splats: Splats that each body token carries; 0 turns them off.
        photo_patches: Show the photo's pixels to its tokens, beside the latents.
        max_offset: Farthest that a splat gets from its start along its ray, metres.

    Raises:
        UserError: If the numbers do not fit each other.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SelfAttentionBlock", "BodyAttentionBlock"]

    @register_to_config
    def __init__(
        self,
        *,
        latent_channels: int = 4,
        cell: int = 8,
        patch: int = 1,
        num_views: int = NUM_VIEWS,
        width: int = 256,
        num_heads: int = 4,
        num_intra_layers: int = 4,
        num_body_layers: int = 1,
        num_inter_layers: int = 3,
        window: float = 2.0,
        num_body_tokens: int | None = 1536,
        body: BodyUse = "full",
        kept_cells: int | None = 384,
        unseen_splats: int = 4,
        body_splats: int = 2,
        photo_patches: bool = False,
        max_offset: float = 0.4,
    ) -> None:
        super().__init__()
        _check_numbers(cell, patch, num_views, unseen_splats, body)
        self.grid = TokenGrid(cell, patch)
        self.window, self.max_offset = window, max_offset
        self.num_views, self.kept_cells, self.num_body_tokens = num_views, kept_cells, num_body_tokens
        self.photo_patches = photo_patches
        self.body_use = body
        self.reads_maps = body in ("full", "maps")
        self.attends_to_body = body in ("full", "tokens")
        body_splats = body_splats if self.reads_maps else 0
        self.has_body_tokens = self.attends_to_body or body_splats > 0
        self.gradient_checkpointing = False
        self._stages = Stages()

        def layers(kind: type[SelfAttentionBlock | BodyAttentionBlock], count: int) -> nn.ModuleList:
            return nn.ModuleList(kind(width=width, num_heads=num_heads) for _ in range(count))

        channels = view_channels(self.grid, latent_channels, photo_patches=photo_patches, maps=self.reads_maps)
        self.embed = nn.Linear(channels, width)
        self.view_tokens = nn.Parameter(0.02 * torch.randn(num_views, width))
        self.missing_token = nn.Parameter(0.02 * torch.randn(width))
        self.intra = layers(SelfAttentionBlock, num_intra_layers)
        if self.has_body_tokens:
            channels = BODY_CHANNELS + self.reads_maps + latent_channels
            self.embed_body = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
            self.body_blocks = layers(SelfAttentionBlock, num_body_layers)
        self.inter = layers(BodyAttentionBlock if self.attends_to_body else SelfAttentionBlock, num_inter_layers)
        self.norm = nn.LayerNorm(width)
        photo_splats, others = self.grid.side**2, (patch * unseen_splats) ** 2
        self.photo_head = nn.Linear(width, photo_splats * splat_head.RAY_CHANNELS)
        self.unseen_head = nn.Linear(width, others * splat_head.RAY_CHANNELS)
        self.norm_body = nn.LayerNorm(width) if body_splats else None
        self.body_head = nn.Linear(width, body_splats * splat_head.SKIN_CHANNELS) if body_splats else None
        self._start_at_the_body()

    def _start_at_the_body(self) -> None:
        """Begin near the identity: every splat where its ray or vertex has it, round, grey or the photo's colour."""
        for head in (self.photo_head, self.unseen_head, self.body_head):
            if head is not None:
                nn.init.normal_(head.weight, std=1e-3)
                nn.init.zeros_(head.bias)
        for name, module in self.named_modules():
            if name.endswith(("to_out", "feed.2")):  # the last layer of each residual branch
                nn.init.normal_(module.weight, std=1e-3)
                nn.init.zeros_(module.bias)
        if self.body_head is not None:  # the splats of one token start apart, about a spacing from it
            start = self.body_head.bias.detach().unflatten(0, (-1, splat_head.SKIN_CHANNELS))
            rng = torch.Generator("cpu").manual_seed(0)  # the same splats on whatever device the model is made
            start[:, :3] = 0.2 * torch.randn(start.shape[0], 3, generator=rng, device="cpu").to(start)
            self.body_head.bias.data.copy_(start.flatten())

    def forward(
        self,
        latents: Float[Tensor, "b s c g g"],
        image: Float[Tensor, "b 4 h h"],
        cameras: Cameras,
        body: PosedBody,
        maps: BodyMaps | None = None,
        token_ids: Int[Tensor, " j"] | None = None,
        token_normals: Float[Tensor, "b j 3"] | None = None,
        known: Bool[Tensor, "b s"] | None = None,
    ) -> Gaussians:
        """Decode all views jointly. Nothing here waits for the device.

        Args:
            latents: Of the first ``s`` views, scaled to unit variance; 1 for the photo's alone, ``v`` for all.
            image: The photo, sRGB and alpha (straight), ``h = cell * g``.
            cameras: ``[b, v]``: the photo's, then those carried evenly around the person, by 90, 180 and 270
                degrees for four views (:func:`humansplat.geometry.projection.orbit`).
            body: Vertices ``[b, v, 3]`` of any body model. What the network does not use of it, or of the following
                three, may be anything.
            maps: That body through those cameras, ``h / 2`` on a side. This and the next two come from
                :class:`humansplat.models.conditioning.BodyConditioner`.
            token_ids: The vertices that become tokens.
            token_normals: Their unit normals, world frame.
            known: Which of the latents are given; the others' values do not count. ``None``: all. The photo's must be.

        Returns:
            ``n`` splats a batch element, world frame: the photo's pixels, the other views', the skin's.

        Raises:
            ValueError: If the picture's size does not fit the latents or the maps, the number of cameras not the
                network, or what it reads of the body is not given.
        """
        maps = maps if self.reads_maps else None
        self._check_inputs(latents, image, cameras, maps)
        size = latents.shape[-1] // self.grid.patch  # tokens on a side of a view
        with _full_precision(image.device):
            scene = self._stages.make_scene(image, cameras, body, maps)
            hit = None if maps is None else maps.hit
            kept = nearest_cells(image[:, 3], hit, self.num_views, size, self.kept_cells)  # [b, v, t]

        x = self._tokenize_views(latents, known, scene, kept)
        for block in self.intra:
            x = self._run(block, x)
        points = None
        if self.has_body_tokens:
            if token_ids is None or token_normals is None:
                raise ValueError(f"a network with body={self.body_use!r} needs token_ids and token_normals")
            points = body.vertices[:, token_ids]  # [b, j, 3]
            tokens = self.tokenize_body(latents[:, 0], scene, body, token_ids, token_normals)
        if self.attends_to_body:
            assert points is not None
            windows = self._windows(kept, size, points, cameras)
            for block in self.inter:
                x = self._run(block, x, tokens, windows)
        else:
            for block in self.inter:
                x = self._run(block, x)

        x = self.norm(x).unflatten(1, (self.num_views, -1))  # [b, v, t, d]
        photo = self.photo_head(x[:, :1]).unflatten(-1, (-1, splat_head.RAY_CHANNELS))
        unseen = self.unseen_head(x[:, 1:]).unflatten(-1, (-1, splat_head.RAY_CHANNELS))
        skin = None
        if self.body_head is not None:
            skin = self.body_head(self.norm_body(tokens)).unflatten(-1, (-1, splat_head.SKIN_CHANNELS)).float()
        with _full_precision(image.device):
            return self._stages.decode(
                photo.float(), unseen.float(), skin, points, scene, kept, self.grid, self.max_offset
            )

    def tokenize_body(
        self,
        latents: Float[Tensor, "b c g g"],
        scene: Scene,
        body: PosedBody,
        token_ids: Int[Tensor, " j"],
        token_normals: Float[Tensor, "b j 3"],
    ) -> Float[Tensor, "b j d"]:
        """The human tokenizer; ``latents`` are the photo's."""
        with _full_precision(latents.device):
            features = self._stages.body_features(latents.float(), scene, body, token_ids, token_normals)
        tokens = self.embed_body(features.to(self.missing_token.dtype))  # the weights' type, which autocast may lower
        for block in self.body_blocks:
            tokens = self._run(block, tokens)
        return tokens

    def _tokenize_views(
        self,
        latents: Float[Tensor, "b s c g g"],
        known: Bool[Tensor, "b s"] | None,
        scene: Scene,
        kept: Int[Tensor, "b v t"] | None,
    ) -> Float[Tensor, "b vt d"]:
        with _full_precision(latents.device):
            filled, missing = fill_latents(latents.float(), known, self.num_views)
            features = self._stages.view_features(filled, scene, kept, self.grid, photo_patches=self.photo_patches)
        kind = self.missing_token.dtype
        marks = self.view_tokens + missing.to(kind) * self.missing_token
        return (self.embed(features.to(kind)) + marks[:, :, None]).flatten(1, 2)

    def _check_inputs(self, latents: Tensor, image: Tensor, cameras: Cameras, maps: BodyMaps | None) -> None:
        size, grid, cell = image.shape[-1], latents.shape[-1], self.grid.cell
        if self.reads_maps and maps is None:
            raise ValueError(f"a network with body={self.body_use!r} needs body maps")
        if size != grid * cell or (maps is not None and size != 2 * maps.hit.shape[-1]):
            raise ValueError(
                f"a picture of {size} px needs latents of {size // cell} cells and body maps of {size // 2} px, "
                f"got {grid} and {None if maps is None else maps.hit.shape[-1]}"
            )
        if grid % self.grid.patch:
            raise ValueError(f"latents of {grid} cells cannot be cut into patches of {self.grid.patch}")
        if cameras.viewmats.shape[1] != self.num_views:
            raise ValueError(f"the network takes {self.num_views} cameras, got {cameras.viewmats.shape[1]}")

    def _windows(
        self, kept: Int[Tensor, "b v t"] | None, size: int, points: Float[Tensor, "b j 3"], cameras: Cameras
    ) -> Windows:
        """Which body tokens each token sees, in latent cells."""
        with _full_precision(points.device):
            projected, inside = project_to_cells(points, cameras, self.grid.cell)
            cells = cell_centers(kept, projected, size) * self.grid.patch
            return plan_windows(cells, projected, inside, self.window, grid=size * self.grid.patch)

    def compile_stages(self, **options: str | bool) -> None:
        """Compile what comes before, between and after the blocks: hundreds of small operations become tens.

        Args:
            options: Of ``torch.compile``.
        """
        self._stages = Stages(*(torch.compile(stage, **options) for stage in Stages()))  # type: ignore[call-overload]

    def _run(self, block: nn.Module, *inputs: Tensor | Windows | None) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)


def _check_numbers(cell: int, patch: int, num_views: int, unseen_splats: int, body: str) -> None:
    """Refuse sizes that do not fit.

    Raises:
        UserError: With the number and the remedy.
    """
    if body not in get_args(BodyUse):
        raise UserError(f"body is {body!r}; choose one of {', '.join(get_args(BodyUse))}")
    if patch < 1:
        raise UserError(f"patch is {patch}; give the latent cells on a side of a token, at least 1")
    if num_views < 2:
        raise UserError(f"num_views is {num_views}; give at least 2: the photo's and one other")
    if unseen_splats < 1 or cell % unseen_splats:
        raise UserError(f"unseen_splats is {unseen_splats}; give a number that divides the {cell} pixels of a cell")
