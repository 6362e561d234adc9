"""Assemble a folder of weights from training runs: half precision, checksums.

``python tools/export_weights.py --vae runs/autoencoder_small/final --reconstructor runs/reconstruction_small/final
--out weights/small``

With ``--num-inputs 4 --view-model runs/sv3d_small/final`` the folder can make the unseen views, too. Without ``--vae``
the transformer must be one of pixel space. A lifter goes to a folder of its own:
``python tools/export_weights.py --lifter runs/lifter/final --out weights/lifter/anny``
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from humansplat.errors import UserError
from humansplat.models.autoencoder import PIXEL_CHANNELS, AutoencoderKL
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.weights import CONFIG, VIEW_MODEL, load_module, view_sampling, write_checksums


def main() -> int:
    """Parse, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, help="folder of the trained autoencoder; none in pixel space")
    parser.add_argument("--reconstructor", type=Path, help="folder of the trained transformer")
    parser.add_argument("--lifter", type=Path, help="folder of the trained lifter, instead of the two")
    parser.add_argument(
        "--num-inputs", type=int, choices=(1, 4), default=1, help="reconstruction.num_inputs that it was trained with"
    )
    parser.add_argument("--photo-alone", action="store_true", help="with four, it learned to do with the photo's, too")
    parser.add_argument("--view-model", type=Path, help="folder of the trained view model, for --num-inputs 4")
    parser.add_argument(
        "--view-sampling",
        type=json.loads,
        default={},
        help='as JSON, for example {"num_steps": 6}; what it leaves out a distilled model states itself',
    )
    parser.add_argument("--image-size", type=int, default=256, help="side of the crop it was trained with, pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files of these names are replaced")
    arguments = parser.parse_args()
    given = [value is not None for value in (arguments.vae, arguments.reconstructor, arguments.lifter)]
    if given not in ([True, True, False], [False, True, False], [False, False, True]):
        parser.error("give either --vae and --reconstructor, or --reconstructor of pixel space, or --lifter alone")
    if not isinstance(arguments.view_sampling, dict):
        parser.error(f"--view-sampling {arguments.view_sampling!r} must be a JSON object")
    if arguments.view_model is not None and (arguments.num_inputs == 1 or arguments.vae is None):
        parser.error("a view model goes with --num-inputs 4 and --vae")
    try:
        if arguments.lifter is not None:
            export_lifter(arguments.lifter, arguments.out)
        else:
            stated: dict[str, object] = {"photo_alone": True} if arguments.photo_alone else {}
            if arguments.view_model is not None:
                own = export_view_model(arguments.view_model, arguments.out / VIEW_MODEL)
                stated["view_sampling"] = asdict(view_sampling(own | arguments.view_sampling))
            export(
                arguments.vae,
                arguments.reconstructor,
                arguments.image_size,
                arguments.out,
                arguments.num_inputs,
                stated,
            )
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def export(
    vae: Path | None,
    reconstructor: Path,
    image_size: int,
    out: Path,
    num_inputs: int = 1,
    more: dict[str, object] | None = None,
) -> None:
    """Load both strictly, and write them in float16 with what the pipeline needs to know.

    Args:
        vae: ``None`` for a transformer of pixel space.
        reconstructor: Folder of the transformer.
        image_size: Side of the crop, pixels.
        out: Folder to write.
        num_inputs: Views whose latents it was trained with.
        more: What ``config.json`` states besides.

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
    stated |= more or {}
    (out / CONFIG).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    write_checksums(out)
    _tell_sizes(out)


def export_view_model(view_model: Path, out: Path) -> dict[str, object]:
    """Load a view model strictly, and write it in float16.

    Returns:
        How it states that it is to be sampled, if it was distilled; otherwise nothing.

    Raises:
        UserError: If the folder lacks files or does not fit the classes.
    """
    from humansplat.models.sv3d import load_sv3d  # takes seconds

    model = load_sv3d(view_model, torch.float16)
    model.save(out)
    return dict(model.unet.config.get("sampling") or {})


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
