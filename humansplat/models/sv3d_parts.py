"""The image encoder and the autoencoder inside Stability's single files, as transformers' and diffusers' classes.

``conditioner.embedders.0`` is OpenCLIP's ViT-H/14, of which the image half is used; the embedder with a ``quant_conv``
is Stable Diffusion's autoencoder, whole. ``first_stage_model``, a decoder of videos, is not used: pictures decoded one
by one reconstruct better (HumanSplat, Table 2a).
"""

import re
from collections.abc import Mapping

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from humansplat.errors import UserError
from humansplat.misfits import check_tensors
from humansplat.models.autoencoder import stable_diffusion_autoencoder

VISUAL = "conditioner.embedders.0.open_clip.model.visual."
_QUANT = re.compile(r"(conditioner\.embedders\.\d+\.encoder\.)quant_conv\.weight")

_VISUAL_RULES = (
    (r"^class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^ln_post\.", "vision_model.post_layernorm."),
    (r"^proj$", "visual_projection.weight"),
    (r"^transformer\.resblocks\.(\d+)\.ln_(\d)\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"vision_model.encoder.layers.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"vision_model.encoder.layers.\1.mlp.fc2."),
)
_AUTOENCODER_RULES = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)


def vit_h() -> CLIPVisionConfig:
    """Of the image encoder of SVD and SV3D: OpenCLIP's ViT-H/14."""
    return CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        projection_dim=1024,
        image_size=224,
        patch_size=14,
        hidden_act="gelu",
    )


def image_encoder_from(
    state: Mapping[str, Tensor], source: str, config: CLIPVisionConfig | None = None
) -> CLIPVisionModelWithProjection:
    """Make the image encoder of a single file's tensors.

    Args:
        state: Tensors of the whole file.
        source: What errors call it.
        config: None: ViT-H/14.

    Raises:
        UserError: If the file holds none, or its tensors do not fit; they are named as transformers names them.
    """
    own = {name.removeprefix(VISUAL): tensor for name, tensor in state.items() if name.startswith(VISUAL)}
    if not own:
        raise UserError(f"{source} holds no image encoder ({VISUAL}...); take one of SVD's diffusers folder")
    found: dict[str, Tensor] = {}
    for name, tensor in own.items():
        ours = _renamed(name, _VISUAL_RULES)
        if ".in_proj_" in ours:  # queries, keys and values are one product in OpenCLIP
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                found[ours.replace("in_proj_", f"{letter}_proj.")] = third.contiguous()
        else:
            found[ours] = tensor.T.contiguous() if name == "proj" else tensor
    with torch.device("meta"):
        blank = CLIPVisionModelWithProjection(config or vit_h())
    _fill(blank, found, source)
    # A buffer that is in no file, and so has no memory yet.
    positions = blank.vision_model.embeddings.position_ids
    blank.vision_model.embeddings.position_ids = torch.arange(positions.shape[-1])[None]
    return blank.eval()


def autoencoder_from(state: Mapping[str, Tensor], source: str, blank: AutoencoderKL | None = None) -> AutoencoderKL:
    """Make the autoencoder of a single file's tensors.

    Args:
        state: Tensors of the whole file.
        source: What errors call it.
        blank: A network of its sizes, whose tensors are replaced; None: Stable Diffusion's.

    Raises:
        UserError: If the file holds none, or its tensors do not fit; they are named as diffusers names them.
    """
    prefix = next((match[1] for name in state if (match := _QUANT.fullmatch(name))), None)
    if prefix is None:
        raise UserError(f"{source} holds no autoencoder (conditioner...quant_conv); take Stable Diffusion's")
    if blank is None:
        with torch.device("meta"):
            blank = stable_diffusion_autoencoder()
    last = len(blank.config["up_block_types"]) - 1
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            continue
        # Levels of the way up are counted from the finest.
        from_below = re.sub(r"(?<=^decoder\.up\.)\d+", lambda level: str(last - int(level[0])), name[len(prefix) :])
        ours = _renamed(from_below, _AUTOENCODER_RULES)
        found[ours] = tensor[..., 0, 0] if ".attentions.0.to_" in ours and tensor.ndim == 4 else tensor
    _fill(blank, found, source)
    return blank.eval()


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _fill(blank: torch.nn.Module, found: dict[str, Tensor], source: str) -> None:
    shapes = {name: tensor.shape for name, tensor in blank.state_dict().items()}
    check_tensors(found, shapes, source, type(blank).__name__)
    blank.load_state_dict({name: tensor.clone() for name, tensor in found.items()}, strict=True, assign=True)
