"""Convert weights of SV3D between the published layouts.

``python tools/convert_weights.py sv3d_p.safetensors --out weights/sv3d``          Stability's file -> a folder
``python tools/convert_weights.py .../svd-xt/unet --out weights/sv3d_from_svd``    a diffusers folder -> DIR/unet
``python tools/convert_weights.py weights/sv3d/unet --to stability --out ours.safetensors``    and back

SV3D-p, SV3D-u and SVD-xt are told apart by their tensors. Networks of other sizes as a single file need ``--config``.
Stability's files hold an image encoder and an autoencoder too, which become ``image_encoder/`` and ``vae/``.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection

from humansplat.errors import UserError
from humansplat.io.atomic import replacing, replacing_folder
from humansplat.models.sv3d_parts import autoencoder_from, image_encoder_from
from humansplat.models.sv3d_weights import load_unet, read_tensors, state_in

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def main() -> int:
    """Parse, load strictly, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a .safetensors file, or a folder unet/ with config.json")
    parser.add_argument("--out", type=Path, required=True, help="folder to write unet/ to, or the file for stability")
    parser.add_argument("--to", choices=("diffusers", "stability"), default="diffusers")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="precision to write; default: as it is stored")
    parser.add_argument("--config", type=Path, help="config.json of the network in a single file of another size")
    arguments = parser.parse_args()
    try:
        config = _read_config(arguments.config) if arguments.config else None
        unet = load_unet(arguments.source, config, DTYPES.get(arguments.dtype))
        if arguments.to == "diffusers":
            parts = _other_parts(arguments.source, DTYPES.get(arguments.dtype))
            for name, part in {"unet": unet, **parts}.items():
                with replacing_folder(arguments.out / name) as temporary:
                    part.save_pretrained(temporary)
        elif arguments.out.suffix != ".safetensors":
            raise UserError(f"--out {arguments.out} is one file in this layout; call it .safetensors")
        else:
            with replacing(arguments.out) as temporary:
                save_file(state_in(unet, "stability"), temporary)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: {sum(tensor.numel() for tensor in unet.state_dict().values()) / 1e6:.2f} M parameters")
    return 0


def _other_parts(source: Path, dtype: torch.dtype | None) -> dict[str, AutoencoderKL | CLIPVisionModelWithProjection]:
    """The image encoder and the autoencoder of a single file, if it has them."""
    state = {} if source.is_dir() else read_tensors(source)
    if not any(name.startswith("conditioner.") for name in state):
        return {}
    parts = {
        "image_encoder": image_encoder_from(state, str(source)),
        "vae": autoencoder_from(state, str(source)),
    }
    return {name: part if dtype is None else part.to(dtype) for name, part in parts.items()}


def _read_config(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no configuration ({error}); give the config.json of a UNet") from error
    return {key: value for key, value in values.items() if not key.startswith("_")}


if __name__ == "__main__":
    sys.exit(main())
