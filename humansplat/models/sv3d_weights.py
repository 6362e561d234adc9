"""Weights of SV3D in every published layout: names, shapes, and the way from one to another.

* ``stability``: tensors are called ``model.diffusion_model.input_blocks...``: the single files ``sv3d_p``, ``sv3d_u``
  and ``svd_xt``, which hold other parts too (``OTHER_PARTS``).
* ``diffusers``: tensors are called ``down_blocks...``: the folders ``unet/`` of chenguolin/sv3d-diffusers,
  paulpanwang/GenHuman3D and SVD-xt, and ours.

SVD is not told angles but frames per second and motion. What it does at its usual values of these two goes into a
bias, and the angles begin without influence: training goes on from SVD's own function.

Nothing is guessed: a tensor that is missing, unknown or of another shape is an error that names it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from humansplat.errors import UserError
from humansplat.misfits import check_tensors
from humansplat.models.sv3d_unet import SV3DUNet

Layout = Literal["stability", "diffusers"]
STABILITY = "model.diffusion_model."
OTHER_PARTS = ("conditioner.", "first_stage_model.")
"""Of the single files: the photo's encoders and the autoencoder."""
SVD_FPS, SVD_MOTION = 6.0, 127.0
"""What SVD's own pipeline tells its network: 7 frames a second less one, and its default motion."""
LABEL = "add_embedding.linear_1"

_RESIDUAL = {
    f"{ours}.{name}": f"{theirs}{other}"
    for ours, theirs in (("spatial_res_block", ""), ("temporal_res_block", "time_stack."))
    for name, other in (
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    )
}
_ATTENTION = {
    "temporal_transformer_blocks": "time_stack",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
_MLP = {"linear_1": "0", "linear_2": "2"}


def load_unet(path: Path, config: Mapping[str, object] | None = None, dtype: torch.dtype | None = None) -> SV3DUNet:
    """Load SV3D's network from a single file or a folder of any layout.

    Args:
        path: A ``.safetensors`` file, or a folder with ``config.json`` and such files.
        config: Arguments of :class:`SV3DUNet` for a file; None: those of the published sizes. A folder has its own.
        dtype: Of the tensors; None: as they are stored.

    Returns:
        The network in ``eval`` mode. From SVD it is one with angles, to be trained further.

    Raises:
        UserError: If files are missing or broken, or the tensors do not fit; they are named.
    """
    if path.is_dir():
        config = _folder_config(path)
    # Copies: what is read is a view of the file, which may be written anew while the network lives.
    state = {name: tensor.to(dtype or tensor.dtype, copy=True) for name, tensor in read_tensors(path).items()}
    return unet_from(state, config or {}, str(path))


def unet_from(state: Mapping[str, Tensor], config: Mapping[str, object], source: str) -> SV3DUNet:
    """Make a network of tensors in any layout; ``source`` is what errors call them.

    Raises:
        UserError: If the tensors do not fit the configuration; they are named.
    """
    layout, own = _own_part(state, source)
    arguments = dict(config)
    blank = _blank(arguments)
    label = _names(blank, layout)[f"{LABEL}.weight"]
    width = own[label].shape[-1] if label in own else None
    base = int(blank.config["addition_time_embed_dim"])
    if width == blank.config["projection_class_embeddings_input_dim"]:
        pass
    elif width == 3 * base:
        own = _with_angles(own, label, base, source)
        arguments["projection_class_embeddings_input_dim"] = 5 * base
        blank = _blank(arguments)
    elif width == base:
        arguments["projection_class_embeddings_input_dim"] = base
        blank = _blank(arguments)
    names = _names(blank, layout)
    shapes = {names[name]: tensor.shape for name, tensor in blank.state_dict().items()}
    check_tensors(own, shapes, source, "SV3DUNet")
    blank.load_state_dict({name: own[names[name]] for name in names}, strict=True, assign=True)
    return blank.requires_grad_(True).eval()


def state_in(unet: SV3DUNet, layout: Layout) -> dict[str, Tensor]:
    """The network's tensors under the names of a layout."""
    names = _names(unet, layout)
    return {names[name]: tensor.contiguous() for name, tensor in unet.state_dict().items()}


def stability_names(unet: SV3DUNet) -> dict[str, str]:
    """Stability's name of every tensor of a network, by ours."""
    tables = {"residual": _RESIDUAL, "attention": _ATTENTION, "mlp": _MLP, "plain": {}}
    places = _places(unet)
    names = {}
    for name in unet.state_dict():
        ours = next(place for place in places if name.startswith(f"{place}."))
        theirs, kind = places[ours]
        leaf = name[len(ours) + 1 :]
        head = next((head for head in tables[kind] if leaf.startswith(f"{head}.")), None)
        if head is not None:
            leaf = tables[kind][head] + leaf[len(head) :]
        names[name] = f"{STABILITY}{theirs}.{leaf}"
    return names


def _places(unet: SV3DUNet) -> dict[str, tuple[str, str]]:
    """Modules by our names: Stability's, which count through the levels, and the kind of their inside."""
    places = {
        "time_embedding": ("time_embed", "mlp"),
        "add_embedding": ("label_emb.0", "mlp"),
        "conv_in": ("input_blocks.0.0", "plain"),
        "conv_norm_out": ("out.0", "plain"),
        "conv_out": ("out.2", "plain"),
        "mid_block.resnets.0": ("middle_block.0", "residual"),
        "mid_block.attentions.0": ("middle_block.1", "attention"),
        "mid_block.resnets.1": ("middle_block.2", "residual"),
    }

    def add(ours: str, theirs: str, block: torch.nn.Module, layer: int) -> int:
        """A residual block and its attention; gives how many places of theirs they take."""
        places[f"{ours}.resnets.{layer}"] = (f"{theirs}.0", "residual")
        if getattr(block, "has_cross_attention", False):
            places[f"{ours}.attentions.{layer}"] = (f"{theirs}.1", "attention")
            return 2
        return 1

    count = 1
    for level, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            add(f"down_blocks.{level}", f"input_blocks.{count}", block, layer)
            count += 1
        if block.downsamplers is not None:
            places[f"down_blocks.{level}.downsamplers.0.conv"] = (f"input_blocks.{count}.0.op", "plain")
            count += 1
    count = 0
    for level, block in enumerate(unet.up_blocks):
        for layer in range(len(block.resnets)):
            taken = add(f"up_blocks.{level}", f"output_blocks.{count}", block, layer)
            if block.upsamplers is not None and layer == len(block.resnets) - 1:
                place = f"output_blocks.{count}.{taken}.conv"
                places[f"up_blocks.{level}.upsamplers.0.conv"] = (place, "plain")
            count += 1
    return places


def _names(unet: SV3DUNet, layout: Layout) -> dict[str, str]:
    return stability_names(unet) if layout == "stability" else {name: name for name in unet.state_dict()}


def _blank(arguments: Mapping[str, object]) -> SV3DUNet:
    """A network without memory: 1.5 billion numbers need not be drawn to be replaced."""
    with torch.device("meta"):
        return SV3DUNet(**arguments)


def _with_angles(own: dict[str, Tensor], label: str, base: int, source: str) -> dict[str, Tensor]:
    """Tensors of SVD, as those of an SV3D that has not been told angles yet."""
    bias_name = label.removesuffix("weight") + "bias"
    if bias_name not in own:
        raise UserError(f"{source} does not fit SV3DUNet; missing: {bias_name}")
    weight, bias = own[label].float(), own[bias_name].float()
    told = torch.tensor([SVD_FPS, SVD_MOTION])
    constant = get_timestep_embedding(told, base, flip_sin_to_cos=True, downscale_freq_shift=0).flatten()
    wide = torch.cat([weight[:, 2 * base :], weight.new_zeros(len(weight), 4 * base)], dim=1)
    changed = {label: wide, bias_name: bias + weight[:, : 2 * base] @ constant}
    return {**own, **{name: tensor.to(own[name].dtype) for name, tensor in changed.items()}}


def _own_part(state: Mapping[str, Tensor], source: str) -> tuple[Layout, dict[str, Tensor]]:
    if any(name.startswith(STABILITY) for name in state):
        return "stability", {name: state[name] for name in state if not name.startswith(OTHER_PARTS)}
    if any(name.startswith(("conv_in.", "down_blocks.", "time_embedding.")) for name in state):
        return "diffusers", dict(state)
    raise UserError(
        f"{source} holds no layout of SV3D or SVD that is known; its tensors begin with {', '.join(sorted(state)[:3])}"
    )


def _folder_config(folder: Path) -> dict[str, object]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no config.json; give the folder of the UNet, or a .safetensors file"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / 'config.json'} is broken ({error}); get it anew") from error
    known = set(SV3DUNet._get_init_keys(SV3DUNet))
    unknown = sorted(key for key in values if not key.startswith("_") and key not in known)
    if unknown:
        raise UserError(f"{folder / 'config.json'}: SV3DUNet has no {', '.join(unknown)}")
    arguments = {key: value for key, value in values.items() if not key.startswith("_")}
    base = arguments.get("addition_time_embed_dim", 256)
    if (
        "SV3D" not in values.get("_class_name", "")
        and arguments.get("projection_class_embeddings_input_dim") == 3 * base
    ):
        # SVD's frame rate, motion and noise, which must not pass for noise and two narrow angles.
        arguments["projection_class_embeddings_input_dim"] = 5 * base
    return arguments


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, or of all parts in a folder; variants in half precision are not read beside full ones.

    Raises:
        UserError: If there is no such file, or one is broken.
    """
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        full = [file for file in files if ".fp16" not in file.name]
        files = full or files
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path} is no .safetensors file, nor a folder that holds one")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file} is broken ({error}); get it anew") from error
    return state
