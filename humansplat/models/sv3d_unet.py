"""SV3D's network: Stable Video Diffusion's spatio-temporal UNet, told where each view is.

Reference: Voleti et al., "SV3D: Novel Multi-view Synthesis and 3D Generation from a Single Image using Latent Video
Diffusion", ECCV 2024, section 3. Frames of a video are views around an object. Instead of SVD's frame rate and motion,
sinusoidal embeddings of the conditioning noise, the polar angle and the azimuth of every view (256 + 512 + 512
numbers) go through an MLP and are added to the embedding of the noise level, which the residual blocks get.

Tensors have the names and shapes of diffusers' ``UNetSpatioTemporalConditionModel``, and so of the layouts
published for SV3D; ``humansplat.models.sv3d_weights`` maps the others.

Shapes: b batch, v views, c channels of a latent, g and g2 cells on its sides, t tokens of the photo's embedding.
"""

from typing import Any

import torch
from diffusers import ModelMixin as ModelMixin  # where pipelines look for the kind of a class of this module
from diffusers.configuration_utils import register_to_config
from diffusers.hooks import apply_group_offloading
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.models.sv3d_blocks import OURS, Share, idle_layers, lay_channels_last
from humansplat.structures.base import TensorStruct

_DOWN = ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",)
_UP = ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3


class ViewConditions(TensorStruct):
    """What the network is told of the photo and of the views, in the network's own terms."""

    image_embedding: Float[Tensor, "b t d"]
    """CLIP embedding of the photo, one token."""
    photo_latent: Float[Tensor, "b c g g2"]
    """Of the photo, *not* multiplied by the autoencoder's scaling factor."""
    cond_aug: Float[Tensor, "b v"]
    """Deviation of the noise on the photo before it was encoded."""
    polar: Float[Tensor, "b v"]
    """Angle from straight up, radians: 90 degrees less the elevation."""
    azimuth: Float[Tensor, "b v"]
    """From the photo's view, radians in [0, 2 pi)."""

    def to(self, device: torch.device | str | None) -> "ViewConditions":
        """Move every tensor; accelerate's offload gives None where things are to stay."""
        return self if device is None else super().to(device)

    def roll_views(self, shift: int) -> "ViewConditions":
        """Bring the views into another order: the last ``shift`` come first."""
        return ViewConditions(
            image_embedding=self.image_embedding,
            photo_latent=self.photo_latent,
            cond_aug=self.cond_aug.roll(shift, dims=1),
            polar=self.polar.roll(shift, dims=1),
            azimuth=self.azimuth.roll(shift, dims=1),
        )

    def joined(self, other: "ViewConditions") -> "ViewConditions":
        """Both, one after the other on the batch axis."""
        names = ("image_embedding", "photo_latent", "cond_aug", "polar", "azimuth")
        return ViewConditions(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})

    def keeping(self, embedding: Float[Tensor, " b"], latent: Float[Tensor, " b"]) -> "ViewConditions":
        """The photo's embedding and latent where the factors are 1, nothing of them where they are 0."""
        return ViewConditions(
            image_embedding=self.image_embedding * embedding[:, None, None],
            photo_latent=self.photo_latent * latent[:, None, None, None],
            cond_aug=self.cond_aug,
            polar=self.polar,
            azimuth=self.azimuth,
        )

    def without_photo(self) -> "ViewConditions":
        """The unconditional branch of guidance: the photo is gone, the views are not."""
        nothing = self.photo_latent.new_zeros(len(self.photo_latent))
        return self.keeping(nothing, nothing)


class SV3DUNet(UNetSpatioTemporalConditionModel):
    """SV3D's UNet. Arguments are named as in the published configurations, and default to SV3D-p.

    Args:
        sample_size: As published; not used.
        in_channels: Of the noised latent and the photo's latent together.
        out_channels: Of a latent.
        down_block_types: One a level, from diffusers.
        up_block_types: One a level, from diffusers.
        block_out_channels: Widths of the levels, multiples of 32.
        addition_time_embed_dim: Width of the embedding of ``cond_aug``.
        projection_class_embeddings_input_dim: Width of all embeddings of a view together; what is left beside
            ``cond_aug`` is shared evenly by the two angles. With nothing left there are no angles: SV3D-u.
        layers_per_block: Residual blocks a level.
        cross_attention_dim: Width of the photo's embedding.
        transformer_layers_per_block: Of each attention.
        num_attention_heads: One number a level.
        num_frames: As published; any number of views can be given.
        latent_scaling: The autoencoder's ``scaling_factor``: noised latents have it, the photo's latent that is laid
            beside them does not.
        norm_groups: Of the group norms. 32 groups of a narrow network's 32 channels would take every channel's mean
            away, and a person's colours with it.
        sampling: How a network that was distilled is sampled, see ``pipelines.weights.ViewSampling``; None: anyhow.

    Raises:
        ValueError: If the widths of the embeddings do not go together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] | list[str] = _DOWN,
        up_block_types: tuple[str, ...] | list[str] = _UP,
        block_out_channels: tuple[int, ...] | list[int] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 1280,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: int | tuple[int, ...] | list[int] = (5, 10, 20, 20),
        num_frames: int = 21,
        latent_scaling: float = 0.18215,
        norm_groups: int = 32,
        sampling: dict[str, object] | None = None,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            block_out_channels=tuple(block_out_channels),
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads
            if isinstance(num_attention_heads, int)
            else tuple(num_attention_heads),
            num_frames=num_frames,
        )
        for module in self.modules():
            if type(module) in OURS:
                module.__class__ = OURS[type(module)]
            if isinstance(module, Share):  # diffusers makes it on the CPU, whatever device is the default
                module.mix_factor = nn.Parameter(torch.full((1,), 0.5))
        left = projection_class_embeddings_input_dim - addition_time_embed_dim
        if left < 0 or left % 4:
            raise ValueError(
                f"projection_class_embeddings_input_dim {projection_class_embeddings_input_dim} leaves {left} beside "
                f"the {addition_time_embed_dim} of addition_time_embed_dim, which two angles cannot share"
            )
        self.has_angles = left > 0
        if self.has_angles:
            self.add_angle_proj = Timesteps(left // 2, flip_sin_to_cos=True, downscale_freq_shift=0)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            for module in block.resnets.modules():
                # As published. diffusers' blocks with attention, and those on the way up, have a tenth of it.
                if isinstance(module, nn.GroupNorm):
                    module.eps = 1e-5
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = norm_groups
        self.latent_scaling = latent_scaling
        self.side_multiple = 2 ** (len(block_out_channels) - 1)

    def channels_last(self) -> None:
        """Lay the weights of all convolutions channels last in memory; pictures follow them. Faster on a GPU."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Conv3d):
                    order = torch.channels_last if module.weight.ndim == 4 else torch.channels_last_3d
                    module.weight.data = module.weight.contiguous(memory_format=order)

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        offload_type: str = "block_level",
        **options: Any,
    ) -> None:
        """Bring layers to a device while they compute, see diffusers' ``ModelMixin.enable_group_offload``.

        With ``leaf_level`` the layers that attention to a single token does without are brought by themselves, when
        something asks for them after all. diffusers fetches each layer while the one before computes, in the order
        of the first run, and warns of those that it did not see there.
        """
        places = idle_layers(self) if offload_type == "leaf_level" else []
        idle = [(parent, name, getattr(parent, name)) for parent, name in places]
        try:
            for parent, name, _ in idle:
                setattr(parent, name, None)
            super().enable_group_offload(onload_device, offload_device, offload_type, **options)
        finally:
            for parent, name, layer in idle:
                setattr(parent, name, layer)
        for _, _, layer in idle:
            apply_group_offloading(layer, onload_device, offload_device, offload_type)

    def view_vector(self, conditions: ViewConditions) -> Float[Tensor, "b v e"]:
        """Sinusoidal embeddings of the views: of ``cond_aug``, polar angle and azimuth, in this order, in float32."""
        shape = conditions.cond_aug.shape
        parts = [self.add_time_proj(conditions.cond_aug.flatten())]
        if self.has_angles:
            parts += [self.add_angle_proj(angle.flatten()) for angle in (conditions.polar, conditions.azimuth)]
        return torch.cat(parts, dim=-1).unflatten(0, shape)

    def forward(
        self,
        sample: Float[Tensor, "b v c g g2"],
        noise_level: Float[Tensor, " b"],
        conditions: ViewConditions,
    ) -> Float[Tensor, "b v c g g2"]:
        """Run the raw network.

        Args:
            sample: Noised latents, already multiplied by ``c_in``; the views in the order that the weights were
                trained with (SV3D: the photo's view last).
            noise_level: ``c_noise`` of each batch element.
            conditions: Of the photo and the views.

        Raises:
            ValueError: If a side of the latents is not a multiple of 2 to the number of downsamplings.
        """
        batch, views = sample.shape[:2]
        if any(side % self.side_multiple for side in sample.shape[-2:]):
            raise ValueError(
                f"latents of {tuple(sample.shape[-2:])} cells do not halve evenly; sides must be multiples of "
                f"{self.side_multiple}"
            )
        level = self.time_embedding(self.time_proj(noise_level).to(sample.dtype))  # [b, e]
        view = self.add_embedding(self.view_vector(conditions).to(sample.dtype))  # [b, v, e]
        inside = _Inside(
            temb=(level[:, None] + view).flatten(0, 1),
            tokens=conditions.image_embedding.to(sample.dtype).repeat_interleave(views, dim=0),
            # Zero everywhere: these are views of one thing, not single pictures.
            image_only=sample.new_zeros(batch, views),
        )
        photo = conditions.photo_latent.to(sample.dtype)[:, None].expand(-1, views, -1, -1, -1)
        hidden = self.conv_in(lay_channels_last(torch.cat([sample, photo], dim=2).flatten(0, 1)))  # [n, width, g, g2]

        skips = (hidden,)
        for block in self.down_blocks:
            hidden, outputs = block(hidden_states=hidden, **inside.arguments(block))
            skips += outputs
        hidden = self.mid_block(hidden_states=hidden, **inside.arguments(self.mid_block))
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, taken = skips[:-count], skips[-count:]
            hidden = block(hidden_states=hidden, res_hidden_states_tuple=taken, **inside.arguments(block))
        return self.conv_out(self.conv_norm_out(hidden, silu=True)).unflatten(0, (batch, views))


class _Inside(TensorStruct):
    """What every block is given beside the picture; views are folded into the batch."""

    temb: Tensor
    tokens: Tensor
    image_only: Tensor

    def arguments(self, block: nn.Module) -> dict[str, Tensor]:
        given = {"temb": self.temb, "image_only_indicator": self.image_only}
        if getattr(block, "has_cross_attention", False):
            given["encoder_hidden_states"] = self.tokens
        return given
