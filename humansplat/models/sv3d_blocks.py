"""SV3D's residual blocks and transformers, computed with the views side by side.

The modules are diffusers', which settles the names and shapes of their tensors. What is computed with them is the
same, in fewer and cheaper operations:

- pictures lie in memory channels last, so that a transformer's tokens are the same memory, and so are a view's
  pixels [b, c, v, g * g2] for the convolution over views, which is one over a picture of v rows then;
- attention to a single token is that token's value, whatever asks;
- on a GPU, what PyTorch does in several passes over memory is done by Triton's kernels, gradients included. Norms
  then have the type of what they are given, half precision under autocast, which the next layer takes as it is.

Shapes: b batch, v views, n = b * v, c channels, g and g2 cells on the sides of a picture, e the embedding's width.
"""

import importlib.util
from types import ModuleType

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, SpatioTemporalResBlock, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from humansplat.models.sv3d_autograd import Idle, Laid


class PictureConv(nn.Conv2d):
    """A convolution of pictures [n, c, g, g2]."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return self._conv_forward(input, _weight_for(input, self.weight), self.bias)


class ViewConv(nn.Conv3d):
    """A convolution over views, of pictures [b, c, v, g * g2]."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve every pixel with the same one of the neighbouring views."""
        return F.conv2d(input, _weight_for(input, self.weight), self.bias, padding=(1, 0))


class ViewNorm(nn.GroupNorm):
    """A group norm, with what is added before it and the SiLU behind it."""

    def forward(self, input: Tensor, added: Tensor | None = None, silu: bool = False) -> Tensor:
        """Norm pictures [n, c, g, g2]; ``added`` has the first axes of theirs, and holds for all of the others."""
        kernels = _kernels(input)
        if kernels is not None and input.is_contiguous(memory_format=torch.channels_last):
            return kernels.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, added, silu)
        if added is not None:
            input = input + added[(...,) + (None,) * (input.ndim - added.ndim)]
        normed = super().forward(input)
        return F.silu(normed) if silu else normed


class SumNorm(nn.LayerNorm):
    """A layer norm of tokens with what is added to them."""

    def forward(  # type: ignore[override]
        self, input: Tensor, change: Tensor | None = None, extra: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum and its norm, tokens [..., p, c]; ``change`` is like them, ``extra`` holds for all pixels."""
        kernels = _kernels(input)
        if kernels is not None and (torch.is_grad_enabled() or change is not None or extra is not None):
            return kernels.sum_norm(input, change, extra, self.weight, self.bias, self.eps)
        if change is not None:
            input = input + change
        if extra is not None:
            input = input + extra
        return input, super().forward(input)


class ViewUpsample(Upsample2D):
    """Twice as many pixels, and a convolution; diffusers' has large batches leave channels last."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None) -> Tensor:
        """Pictures [n, c, g, g2]."""
        if output_size is not None or 4 * hidden_states.numel() >= 2**31:
            return super().forward(hidden_states, output_size)
        return self.conv(F.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))


class ViewGate(GEGLU):
    """The first layer of a feed-forward network, of which one half is gated by the other."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Tokens [..., c]."""
        projected = self.proj(hidden_states)
        kernels = _kernels(projected)
        if kernels is not None:
            return kernels.gate(projected)
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)


class Share(AlphaBlender):
    """The share of what was computed picture by picture in a blend with what was computed over views."""

    def forward(self) -> Tensor:
        """A number between 0 and 1, [1]."""
        return torch.sigmoid(self.mix_factor)


class ViewResidualBlock(SpatioTemporalResBlock):
    """A residual block of each picture, then one over the views, blended."""

    def forward(self, hidden_states: Tensor, temb: Tensor, image_only_indicator: Tensor) -> Tensor:
        """Compute what diffusers' does; ``hidden_states`` [n, c, g, g2], ``temb`` [n, e]."""
        views = image_only_indicator.shape[-1]
        activated = F.silu(temb)
        spatial = self.spatial_res_block
        shortcut = hidden_states if spatial.conv_shortcut is None else spatial.conv_shortcut(hidden_states)
        pictures = shortcut + _change(spatial, hidden_states, spatial.time_emb_proj(activated))

        columns = pictures.unflatten(0, (-1, views)).transpose(1, 2).flatten(-2)  # [b, c, v, g * g2]
        over_views = self.temporal_res_block
        added = over_views.time_emb_proj(activated).unflatten(0, (-1, views)).transpose(1, 2)
        change = _change(over_views, columns, added)
        # The blend of the pictures and of the pictures with a change is the pictures with a part of the change.
        blended = torch.addcmul(columns, change, 1 - self.time_mixer().to(change.dtype))
        return blended.transpose(1, 2).flatten(0, 1).unflatten(-1, pictures.shape[-2:])


class ViewTransformer(TransformerSpatioTemporalModel):
    """Layers of attention within each picture, each followed by one over the views of each pixel, blended."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        image_only_indicator: Tensor,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Compute what diffusers' does; ``hidden_states`` [n, c, g, g2], ``encoder_hidden_states`` [n, t, d]."""
        shape, views = hidden_states.shape, image_only_indicator.shape[-1]
        tokens = self.proj_in(self.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2))  # [n, g * g2, c]
        places = self.time_proj(torch.arange(views, device=tokens.device)).to(tokens.dtype)
        place = self.time_pos_embed(places)[:, None]  # [v, 1, c]
        first = encoder_hidden_states[::views]  # all views have the same
        share = self.time_mixer().to(tokens.dtype)
        for layer, over_views in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            tokens = _within_pictures(layer, tokens, encoder_hidden_states)
            side_by_side = tokens.unflatten(0, (-1, views))  # [b, v, g * g2, c]
            mixed = _over_views(over_views, side_by_side, place, first)
            tokens = torch.lerp(mixed, side_by_side, share).flatten(0, 1)
        change = self.proj_out(tokens).unflatten(1, shape[-2:]).permute(0, 3, 1, 2)
        return (hidden_states + change,)


HAS_TRITON = importlib.util.find_spec("triton") is not None
TRAINS_WITH_KERNELS = True
"""Whether steps of training use Triton's kernels, too."""
MOST_VIEWS = 8
"""Of which a program of the kernel holds all at once."""
MOST_ROWS = 2**15
"""Of a batch in one call of PyTorch's attention: cuDNN's fails above 65,535, which the pixels of a batch exceed."""
OURS: dict[type[nn.Module], type[nn.Module]] = {
    SpatioTemporalResBlock: ViewResidualBlock,
    TransformerSpatioTemporalModel: ViewTransformer,
    AlphaBlender: Share,
    GEGLU: ViewGate,
    nn.GroupNorm: ViewNorm,
    nn.LayerNorm: SumNorm,
    nn.Conv2d: PictureConv,
    nn.Conv3d: ViewConv,
    Upsample2D: ViewUpsample,
}
"""What takes the place of diffusers' classes."""
_LAYERS = (BasicTransformerBlock, TemporalBasicTransformerBlock)


def lay_channels_last(pictures: Tensor) -> Tensor:
    """Pictures in the order in memory that steps of training are fastest in; what follows them keeps it."""
    if _kernels(pictures) is None or not torch.is_grad_enabled():
        return pictures  # without gradients, whoever wants it lays the weights so
    half = pictures.dtype.itemsize == 2 or torch.is_autocast_enabled(pictures.device.type)
    return pictures.contiguous(memory_format=torch.channels_last) if half else pictures


def idle_layers(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """What attention to a single token does without while nothing is trained: parents, and names of layers there."""
    layers = [part for part in network.modules() if isinstance(part, _LAYERS)]
    return [place for part in layers for place in ((part, "norm2"), (part.attn2, "to_q"), (part.attn2, "to_k"))]


def _change(block: ResnetBlock2D | TemporalResnetBlock, hidden: Tensor, added: Tensor) -> Tensor:
    """What a residual block adds to its input; ``added`` is the embedding's share, within."""
    change = block.conv1(block.norm1(hidden, silu=True))
    return block.conv2(block.norm2(change, added, silu=True))


def _within_pictures(layer: BasicTransformerBlock, tokens: Tensor, photo: Tensor) -> Tensor:
    """A layer of attention within pictures, tokens [n, p, c] of p pixels."""
    attended = _self_attention(layer.attn1, layer.norm1(tokens)[1])
    tokens, normed = _with_photo(layer, tokens, attended, photo)
    return tokens + layer.ff(normed)


def _over_views(layer: TemporalBasicTransformerBlock, tokens: Tensor, place: Tensor, photo: Tensor) -> Tensor:
    """A layer of attention over the views of each pixel, tokens [b, v, p, c]; ``place`` [v, 1, c] is theirs."""
    tokens, normed = layer.norm_in(tokens, None, place)
    tokens, normed = layer.norm1(tokens, layer.ff_in(normed))
    tokens, normed = _with_photo(layer, tokens, _attention_over_views(layer.attn1, normed), photo)
    return tokens + layer.ff(normed)


def _with_photo(
    layer: BasicTransformerBlock | TemporalBasicTransformerBlock, tokens: Tensor, attended: Tensor, photo: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens [m, ..., c] with what they attended to, and with attention to the photo's [m, t, d]; and their norm."""
    attention = layer.attn2
    training = torch.is_grad_enabled()
    if photo.shape[1] == 1 and not (training and torch.compiler.is_compiling()):
        value = attention.to_out[0](attention.to_v(photo))
        if training:  # queries and keys have gradients, of zero: no part of a network that is trained is without
            idle = (layer.norm2, attention.to_q, attention.to_k)
            value = Idle.apply(value, *(parameter for part in idle for parameter in part.parameters()))
        return layer.norm3(tokens, attended, value.view(len(photo), *(1 for _ in tokens.shape[1:-1]), -1))
    tokens, asking = layer.norm2(tokens, attended)
    return layer.norm3(tokens, attention(asking.flatten(1, -2), photo).view_as(tokens))


def _self_attention(attention: Attention, tokens: Tensor) -> Tensor:
    query, key, value = (
        project(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    parts = zip(*(tensor.split(MOST_ROWS) for tensor in (query, key, value)), strict=True)
    attended = [F.scaled_dot_product_attention(*part) for part in parts]
    joined = attended[0] if len(attended) == 1 else torch.cat(attended)
    return attention.to_out[0](joined.transpose(1, 2).flatten(2))


def _attention_over_views(attention: Attention, tokens: Tensor) -> Tensor:
    kernels = _kernels(tokens)
    if kernels is not None and tokens.shape[1] <= MOST_VIEWS:
        asked = (project(tokens) for project in (attention.to_q, attention.to_k, attention.to_v))
        return attention.to_out[0](kernels.attend_views(*asked, attention.heads))
    pixels = tokens.transpose(1, 2)  # [b, p, v, c]
    return _self_attention(attention, pixels.flatten(0, 1)).view(pixels.shape).transpose(1, 2)


def _weight_for(pictures: Tensor, weight: Tensor) -> Tensor:
    """A convolution's weight, [c, c2, k, k2] or with one more axis of 1, as its product with pictures takes it.

    In a step of training with pictures channels last (:func:`lay_channels_last`) it gets their order and type.
    """
    training = torch.is_grad_enabled() and _kernels(pictures) is not None
    if training and pictures.is_contiguous(memory_format=torch.channels_last):
        kind = pictures.device.type
        autocast = torch.is_autocast_enabled(kind)
        return Laid.apply(weight, torch.get_autocast_dtype(kind) if autocast else pictures.dtype)
    return weight if weight.ndim == 4 else weight[..., 0]


def _kernels(tensor: Tensor) -> ModuleType | None:
    """Triton's kernels, where they can run, with gradients if these are asked for; the compiler has its own."""
    training = torch.is_grad_enabled()
    if not tensor.is_cuda or not HAS_TRITON or torch.compiler.is_compiling() or (training and not TRAINS_WITH_KERNELS):
        return None
    if training:
        from humansplat.models import sv3d_gradients

        return sv3d_gradients
    from humansplat.models import sv3d_kernels

    return sv3d_kernels
