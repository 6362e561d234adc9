"""Assemble a folder of weights from training runs: half precision, checksums.

``python tools/export_weights.py --vae runs/autoencoder_small/final --reconstructor runs/reconstruction_small/final
--out weights/small``

Without ``--vae`` the transformer must be one of pixel space. A lifter goes to a folder of its own:
``python tools/export_weights.py --lifter runs/lifter/final --out weights/lifter/anny``
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from humansplat.errors import UserError
from humansplat.models.autoencoder import PIXEL_CHANNELS, AutoencoderKL
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.weights import CONFIG, load_module, write_checksums


def main() -> int:
    """Parse, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, help="folder of the trained autoencoder; none in pixel space")
    parser.add_argument("--reconstructor", type=Path, help="folder of the trained transformer")
    parser.add_argument("--lifter", type=Path, help="folder of the trained lifter, instead of the two")
    parser.add_argument(
        "--num-inputs", type=int, choices=(1, 4), default=1, help="reconstruction.num_inputs that it was trained with"
    )
    parser.add_argument("--image-size", type=int, default=256, help="side of the crop it was trained with, pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files of these names are replaced")
    arguments = parser.parse_args()
    given = [value is not None for value in (arguments.vae, arguments.reconstructor, arguments.lifter)]
    if given not in ([True, True, False], [False, True, False], [False, False, True]):
        parser.error("give either --vae and --reconstructor, or --reconstructor of pixel space, or --lifter alone")
    try:
        if arguments.lifter is not None:
            export_lifter(arguments.lifter, arguments.out)
        else:
            export(arguments.vae, arguments.reconstructor, arguments.image_size, arguments.out, arguments.num_inputs)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def export(vae: Path | None, reconstructor: Path, image_size: int, out: Path, num_inputs: int = 1) -> None:
    """Load both strictly, and write them in float16 with what the pipeline needs to know.

    Args:
        vae: ``None`` for a transformer of pixel space.
        reconstructor: Folder of the transformer.
        image_size: Side of the crop, pixels.
        out: Folder to write.
        num_inputs: Views whose latents it was trained with.

    Raises:
        UserError: If a folder lacks files or does not fit its class, or the two do not fit together.
    """
    transformer = load_module(LatentReconstructor, reconstructor)
    autoencoder = None if vae is None else load_module(AutoencoderKL, vae)
    channels = PIXEL_CHANNELS if autoencoder is None else autoencoder.config["latent_channels"]
    if transformer.config["latent_channels"] != channels:
        raise UserError(
            f"{reconstructor} reads latents of {transformer.config['latent_channels']} channels, and those of "
            f"{'pixel space' if vae is None else vae} have {channels}: give --vae for a transformer of latents only"
        )
    if autoencoder is not None:
        autoencoder.to(torch.float16).save_pretrained(out / "vae")
    transformer.to(torch.float16).save_pretrained(out / "reconstructor")
    stated: dict[str, object] = {"image_size": image_size}
    if autoencoder is None:
        stated["space"] = "pixel"
    if num_inputs != 1:
        stated["num_inputs"] = num_inputs
    (out / CONFIG).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    write_checksums(out)
    _tell_sizes(out)


def export_lifter(lifter: Path, out: Path) -> None:
    """Load a lifter strictly, and write it in float16 with checksums.

    Raises:
        UserError: If the folder lacks files or does not fit the class.
    """
    load_module(MarkerLifter, lifter).to(torch.float16).save_pretrained(out)
    write_checksums(out)
    _tell_sizes(out)


def _tell_sizes(out: Path) -> None:
    for path in sorted(out.rglob("*.safetensors")):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
