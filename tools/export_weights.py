"""Assemble a folder of weights from two training runs: half precision, checksums.

``python tools/export_weights.py --vae runs/autoencoder_small/final --reconstructor runs/reconstruction_small/final
--out weights/small``
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from humansplat.errors import UserError
from humansplat.models.autoencoder import AutoencoderKL
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.pipelines.weights import CONFIG, load_module, write_checksums


def main() -> int:
    """Parse, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="folder of the trained autoencoder")
    parser.add_argument("--reconstructor", type=Path, required=True, help="folder of the trained transformer")
    parser.add_argument("--image-size", type=int, default=256, help="side of the crop it was trained with, pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files of these names are replaced")
    arguments = parser.parse_args()
    try:
        export(arguments.vae, arguments.reconstructor, arguments.image_size, arguments.out)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def export(vae: Path, reconstructor: Path, image_size: int, out: Path) -> None:
    """Load both strictly, and write them in float16 with what the pipeline needs to know.

    Raises:
        UserError: If a folder lacks files or does not fit its class.
    """
    autoencoder, transformer = load_module(AutoencoderKL, vae), load_module(LatentReconstructor, reconstructor)
    autoencoder.to(torch.float16).save_pretrained(out / "vae")
    transformer.to(torch.float16).save_pretrained(out / "reconstructor")
    (out / CONFIG).write_text(json.dumps({"image_size": image_size}, indent=1) + "\n", encoding="utf-8")
    write_checksums(out)
    for path in sorted(out.rglob("*.safetensors")):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
