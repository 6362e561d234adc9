"""HumanSplat's latent reconstruction transformer: view latents and a body -> Gaussians.

Shapes: b batch, v views (the photo's and the three at 90, 180 and 270 degrees around the person),
g cells on a side of the latent grid, t kept cells of a view, j body tokens, d width, n splats.

Reference: Pan et al., "HumanSplat: Generalizable Single-Image Human Gaussian Splatting with
Structure Priors", NeurIPS 2024, sections 3.4 and 3.5. Where this differs from the paper or its release:

* A splat sits on its pixel's ray, at the body's distance plus a bounded offset, where the release
  predicts absolute positions: what the network has to learn shrinks from a metre to a few
  centimetres of cloth and hair, and a splat cannot leave the pixel that it explains.
* A cell is told what of the body its rays meet (depth, normal, canonical position), besides what it
  finds by attention; cells far from the person are dropped.
* The photo's splats take the photo's own colours and its mask: a latent of 8 x 8 pixels need not
  carry what is known.
* Body tokens carry splats of their own, on the skin. They close what no view sees, such as a chest
  behind an arm.
* Nothing stays outside the cone of the photo's silhouette.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from humansplat.geometry.rays import camera_rays, plucker
from humansplat.models import splat_head
from humansplat.models.cells import MAP_CHANNELS, map_features, nearest_cells, patchify, take_cells
from humansplat.models.layers import BodyAttentionBlock, SelfAttentionBlock
from humansplat.models.windowed_attention import Windows, plan_windows
from humansplat.models.windows import project_to_cells
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, Gaussians, PosedBody, concatenate

NUM_VIEWS = 4
BACK = 2
"""Index of the view from behind."""
SKIN_AREA = 1.8
"""Of an adult, square metres (Mosteller, 1987): sets the size of the skin's splats."""
MAX_SKIN_OFFSET = 0.1
"""Farthest that a skin splat gets from its vertex, metres."""


def _full_precision(device: torch.device) -> torch.autocast:
    """Camera algebra in bf16 would be off by centimetres."""
    return torch.autocast(device.type, enabled=False)


class LatentReconstructor(ModelMixin, ConfigMixin):
    """Predict pixel-aligned splats of four views, and a few on the body's skin.

    Args:
        latent_channels: Channels of the VAE's latents.
        cell: Pixels on a side of a latent cell: the VAE's downsampling factor. One token a cell.
        width: Token width.
        num_heads: Attention heads.
        num_intra_layers: Self-attention blocks over the cells of all views.
        num_body_layers: Self-attention blocks over the body tokens.
        num_inter_layers: Blocks of windowed cross-attention to the body, self-attention, feed-forward.
        window: ``K``: a cell sees the body tokens that project into ``K x K`` cells around its centre.
        num_body_tokens: Body vertices that become tokens, spread evenly over the skin.
        kept_cells: Cells a view that stay, those nearest to the silhouette.
        unseen_splats: Splats on a side of a cell of a view without a photo. The photo's own have
            one for each pixel.
        body_splats: Splats that each body token carries; 0 turns them off.
        photo_patches: Show the photo's pixels to its cells, beside the latents.
        max_offset: Farthest that a splat gets from the body along its ray, metres.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SelfAttentionBlock", "BodyAttentionBlock"]

    @register_to_config
    def __init__(
        self,
        *,
        latent_channels: int = 4,
        cell: int = 8,
        width: int = 256,
        num_heads: int = 4,
        num_intra_layers: int = 4,
        num_body_layers: int = 1,
        num_inter_layers: int = 3,
        window: float = 2.0,
        num_body_tokens: int = 1536,
        kept_cells: int = 384,
        unseen_splats: int = 4,
        body_splats: int = 2,
        photo_patches: bool = False,
        max_offset: float = 0.4,
    ) -> None:
        super().__init__()
        self.cell, self.window, self.max_offset = cell, window, max_offset
        self.kept_cells, self.num_body_tokens = kept_cells, num_body_tokens
        self.unseen_stride = cell // unseen_splats
        self.photo_patches = photo_patches
        self.gradient_checkpointing = False

        photo_channels = (4 if photo_patches else 1) * cell**2
        map_channels = MAP_CHANNELS * (cell // 2) ** 2  # body maps have half the picture's resolution
        self.embed = nn.Linear(latent_channels + 6 + photo_channels + map_channels, width)
        self.view_tokens = nn.Parameter(0.02 * torch.randn(NUM_VIEWS, width))
        self.missing_token = nn.Parameter(0.02 * torch.randn(width))
        self.intra = nn.ModuleList(
            SelfAttentionBlock(width=width, num_heads=num_heads) for _ in range(num_intra_layers)
        )
        self.embed_body = nn.Sequential(nn.Linear(10 + latent_channels, width), nn.SiLU(), nn.Linear(width, width))
        self.body_blocks = nn.ModuleList(
            SelfAttentionBlock(width=width, num_heads=num_heads) for _ in range(num_body_layers)
        )
        self.inter = nn.ModuleList(
            BodyAttentionBlock(width=width, num_heads=num_heads) for _ in range(num_inter_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.photo_head = nn.Linear(width, cell**2 * (1 + splat_head.CHANNELS))
        self.unseen_head = nn.Linear(width, unseen_splats**2 * (1 + splat_head.CHANNELS))
        self.norm_body = nn.LayerNorm(width)
        self.body_head = nn.Linear(width, body_splats * (3 + splat_head.CHANNELS)) if body_splats else None
        self.body_spacing = (SKIN_AREA / (num_body_tokens * max(body_splats, 1))) ** 0.5
        self._start_at_the_body()

    def _start_at_the_body(self) -> None:
        """Begin near the identity: every splat on the skin, round, grey or the photo's colour."""
        for head in (self.photo_head, self.unseen_head, self.body_head):
            if head is not None:
                nn.init.normal_(head.weight, std=1e-3)
                nn.init.zeros_(head.bias)
        for name, module in self.named_modules():
            if name.endswith(("to_out", "feed.2")):  # the last layer of each residual branch
                nn.init.normal_(module.weight, std=1e-3)
                nn.init.zeros_(module.bias)
        if self.body_head is not None:  # the splats of one token start apart, about a spacing from it
            start = self.body_head.bias.detach().unflatten(0, (-1, 3 + splat_head.CHANNELS))
            start[:, :3] = 0.2 * torch.randn(start.shape[0], 3, generator=torch.Generator().manual_seed(0))
            self.body_head.bias.data.copy_(start.flatten())

    def forward(
        self,
        latents: Float[Tensor, "b s c g g"],
        image: Float[Tensor, "b 4 h h"],
        cameras: Cameras,
        body: PosedBody,
        maps: BodyMaps,
        token_ids: Int[Tensor, " j"],
        token_normals: Float[Tensor, "b j 3"],
        known: Bool[Tensor, "b s"] | None = None,
    ) -> Gaussians:
        """Decode all views jointly.

        Args:
            latents: Of the first ``s`` views, scaled to unit variance; 1 for the photo's alone, 4 for all.
            image: The photo, sRGB and alpha (straight), ``h = cell * g``.
            cameras: ``[b, 4]``: the photo's, then those carried by 90, 180 and 270 degrees around the
                person (:func:`humansplat.geometry.projection.orbit`).
            body: Vertices ``[b, v, 3]`` of any body model.
            maps: That body through those cameras, ``h / 2`` on a side. This and the next two come from
                :class:`humansplat.models.conditioning.BodyConditioner`.
            token_ids: The vertices that become tokens.
            token_normals: Their unit normals, world frame.
            known: Which of the latents are given; the others' values do not count. ``None``: all. The photo's must be.

        Returns:
            ``n`` splats a batch element, world frame: the photo's pixels, the other views', the skin's.

        Raises:
            ValueError: If the picture's size does not fit the latents or the maps.
        """
        size, grid = image.shape[-1], latents.shape[-1]
        if size != grid * self.cell or size != 2 * maps.hit.shape[-1]:
            raise ValueError(
                f"a picture of {size} px needs latents of {size // self.cell} cells and body maps of {size // 2} px, "
                f"got {grid} and {maps.hit.shape[-1]}"
            )
        with _full_precision(image.device):
            center = (body.vertices.amin(dim=1) + body.vertices.amax(dim=1)) / 2
            points = body.vertices[:, token_ids]  # [b, j, 3]
            kept = nearest_cells(image[:, 3], maps, grid, self.kept_cells)  # [b, 4, t]
            filled, missing = _filled(latents.float(), known)
            cell_features = self._cell_features(filled, image, cameras, maps, center, kept)
            body_features = self._body_features(latents.float(), cameras, body, maps, center, token_ids, token_normals)
            windows = self._windows(kept, grid, points, cameras)

        x = self.embed(cell_features) + (self.view_tokens + missing * self.missing_token)[:, :, None]
        x = x.flatten(1, 2)  # [b, 4 t, d]
        body_tokens = self.embed_body(body_features)
        for block in self.intra:
            x = self._run(block, x)
        for block in self.body_blocks:
            body_tokens = self._run(block, body_tokens)
        for block in self.inter:
            x = self._run(block, x, body_tokens, windows)
        x = self.norm(x).unflatten(1, (NUM_VIEWS, -1))  # [b, 4, t, d]
        photo_raw = self.photo_head(x[:, :1]).unflatten(-1, (self.cell**2, -1))
        unseen_raw = self.unseen_head(x[:, 1:]).unflatten(-1, (-1, 1 + splat_head.CHANNELS))
        body_raw = self.body_head(self.norm_body(body_tokens)) if self.body_head is not None else None

        with _full_precision(image.device):
            parts = [
                self._photo_splats(photo_raw.float(), kept[:, :1], image, cameras[:, :1], maps[:, :1]),
                self._unseen_splats(unseen_raw.float(), kept[:, 1:], image, cameras, maps[:, 1:]),
            ]
            if body_raw is not None:
                parts.append(self._skin_splats(body_raw.float(), points, image, cameras[:, 0]))
            return concatenate(parts)

    def _run(self, block: nn.Module, *inputs: Tensor | Windows) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _cell_features(
        self,
        filled: Float[Tensor, "b v c g g"],
        image: Tensor,
        cameras: Cameras,
        maps: BodyMaps,
        center: Tensor,
        kept: Int[Tensor, "b v t"],
    ) -> Float[Tensor, "b v t f"]:
        shown = image if self.photo_patches else image[:, 3:]
        photo = image.new_zeros(len(image), NUM_VIEWS, *shown.shape[1:])
        photo[:, 0], photo[:, BACK] = shown, shown.flip(-1)

        origins, directions = camera_rays(cameras, self.cell)
        turn = cameras.viewmats[
            :, 0, None, None, None, :3, :3
        ]  # state rays in the photo's axes, from the body's centre
        offset = ((origins - center[:, None, None, None])[..., None, :] @ turn.mT)[..., 0, :]
        directions = (directions[..., None, :] @ turn.mT)[..., 0, :]
        features = [
            take_cells(filled.movedim(2, -1), kept),
            take_cells(plucker(offset, directions), kept),
            take_cells(patchify(photo.movedim(2, -1), self.cell).flatten(-2), kept),
            take_cells(patchify(map_features(maps, cameras, center), self.cell // 2).flatten(-2), kept),
        ]
        return torch.cat(features, dim=-1)

    def _body_features(
        self,
        latents: Tensor,
        cameras: Cameras,
        body: PosedBody,
        maps: BodyMaps,
        center: Tensor,
        token_ids: Tensor,
        normals: Tensor,
    ) -> Float[Tensor, "b j f"]:
        """The human tokenizer: position and the photo's latent where the vertex projects (section 3.4)."""
        photo = cameras[:, 0]
        rotation = photo.viewmats[:, :3, :3]
        points = body.vertices[:, token_ids]
        canonical = body.canonical[token_ids].expand(len(points), -1, -1)
        visible = splat_head.surface_visible(points, photo, maps)[..., None].to(points.dtype)
        sampled = splat_head.sample_image(latents[:, 0], points, photo)
        local = (points - center[:, None]) @ rotation.mT
        return torch.cat([local, normals @ rotation.mT, canonical, visible, sampled], dim=-1)

    def _windows(
        self, kept: Int[Tensor, "b v t"], grid: int, points: Float[Tensor, "b j 3"], cameras: Cameras
    ) -> Windows:
        cells = torch.stack([kept % grid, kept // grid], dim=-1) + 0.5
        projected, inside = project_to_cells(points, cameras, self.cell)
        return plan_windows(cells, projected, inside, self.window, grid=grid)

    def _photo_splats(self, raw: Tensor, kept: Tensor, image: Tensor, cameras: Cameras, maps: BodyMaps) -> Gaussians:
        means, footprint, _ = self._along_rays(raw, kept, cameras, maps, 1)
        pixels = take_cells(patchify(image.movedim(1, -1)[:, None], self.cell), kept)  # [b, 1, t, k, 4]
        color, alpha = pixels.flatten(1, 3).split([3, 1], dim=-1)
        splats = splat_head.activate(
            raw[..., 1:].flatten(1, 3),
            means=means.flatten(1, 3),
            footprint=footprint.flatten(1, 3),
            camera_to_world=cameras.viewmats[:, :, :3, :3].mT,
            opacity_logit=torch.full_like(alpha, 3.0),
            known=(color, torch.ones_like(alpha)),
            gate_logit=4.0,
        )
        return Gaussians(
            means=splats.means,
            quats=splats.quats,
            scales=splats.scales,
            opacities=splats.opacities * alpha[..., 0],  # nothing stands where the photo shows background
            colors=splats.colors,
        )

    def _unseen_splats(self, raw: Tensor, kept: Tensor, image: Tensor, cameras: Cameras, maps: BodyMaps) -> Gaussians:
        unseen = cameras[:, 1:]
        means, footprint, on_body = self._along_rays(raw, kept, unseen, maps, self.unseen_stride)
        frame = unseen.viewmats[:, :, None, None, :3, :3].mT.expand(*means.shape, 3)
        means = means.flatten(1, 3)
        splats = splat_head.activate(
            raw[..., 1:].flatten(1, 3),
            means=means,
            footprint=footprint.flatten(1, 3),
            camera_to_world=frame.flatten(1, 3),
            opacity_logit=4.0 * on_body.flatten(1, 3) - 2.0,
            known=splat_head.photo_colors(means.detach(), image, cameras[:, 0]),
            gate_logit=0.0,
        )
        return splat_head.carve(splats, image, cameras[:, 0])

    def _along_rays(
        self, raw: Tensor, kept: Tensor, cameras: Cameras, maps: BodyMaps, stride: int
    ) -> tuple[Float[Tensor, "b v t k 3"], Float[Tensor, "b v t k 1"], Float[Tensor, "b v t k 1"]]:
        """Centres, footprints and whether the ray meets the body, of each kept cell's splats."""
        anchors = splat_head.ray_anchors(cameras, maps, stride).map(
            lambda x: take_cells(patchify(x, self.cell // stride), kept)
        )
        distance = anchors.distances + self.max_offset * torch.tanh(raw[..., :1])
        means = cameras.centers[:, :, None, None] + distance * anchors.directions
        focal = cameras.Ks[:, :, 0, 0, None, None, None]
        return means, 0.7 * stride * anchors.distances / focal, anchors.on_body

    def _skin_splats(self, raw: Tensor, points: Float[Tensor, "b j 3"], image: Tensor, photo: Cameras) -> Gaussians:
        raw = raw.unflatten(-1, (-1, 3 + splat_head.CHANNELS))  # [b, j, k, c]
        to_world = photo.viewmats[:, None, :3, :3].mT
        offset = MAX_SKIN_OFFSET * torch.tanh(raw[..., :3]).flatten(1, 2)
        means = points.repeat_interleave(raw.shape[2], dim=1) + offset @ photo.viewmats[:, :3, :3]
        splats = splat_head.activate(
            raw[..., 3:].flatten(1, 2),
            means=means,
            footprint=torch.full_like(means[..., :1], 0.5 * self.body_spacing),
            camera_to_world=to_world,
            opacity_logit=torch.zeros_like(means[..., :1]),
            known=splat_head.photo_colors(means.detach(), image, photo),
            gate_logit=0.0,
        )
        return splat_head.carve(splats, image, photo)


def _filled(
    latents: Float[Tensor, "b s c g g"], known: Bool[Tensor, "b s"] | None
) -> tuple[Float[Tensor, "b v c g g"], Float[Tensor, "b v 1"]]:
    """Latents of all views, and 1 for each that is missing.

    The back's silhouette is the front's mirrored, and its cloth mostly the front's too, so its cells start from the
    mirrored photo; the sides start from nothing.
    """
    batch, given = latents.shape[:2]
    guess = latents.new_zeros(batch, NUM_VIEWS, *latents.shape[2:])
    guess[:, BACK] = latents[:, 0].flip(-1)
    if known is None:
        known = torch.ones(batch, given, dtype=torch.bool, device=latents.device)
    filled = torch.where(known[..., None, None, None], latents, guess[:, :given])
    missing = torch.ones(batch, NUM_VIEWS, 1, device=latents.device)
    missing[:, :given, 0] = (~known).float()
    return torch.cat([filled, guess[:, given:]], dim=1), missing
