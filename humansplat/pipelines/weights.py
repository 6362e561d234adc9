"""Folders of weights: where they lie, whether they are whole, and loading them strictly.

A folder holds ``config.json`` (``image_size``, and where they differ from the defaults ``num_inputs``, ``space``,
``photo_alone`` and ``view_sampling``), and ``vae/``, but not in pixel space, and ``reconstructor/`` as diffusers'
``save_pretrained`` writes them. Beside a reconstructor of four inputs ``view_model/`` may lie, as training view
synthesis leaves it.
``SHA256SUMS``, if it is there, is checked before anything is loaded.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import humansplat
from humansplat.errors import UserError
from humansplat.io.atomic import replacing
from humansplat.io.checksum import sha256_of
from humansplat.misfits import check_tensors
from humansplat.models.edm import SIGMA_MIN, karras_sigmas
from humansplat.models.edm_sampling import Sampler

CONFIG = "config.json"
CHECKSUMS = "SHA256SUMS"
LIFTERS = "lifter"
"""Folder of the lifters, one folder a body model, beside the folders of weights."""
VIEW_MODEL = "view_model"
"""Folder of the view model within a folder of weights."""
WEIGHT_FILE = "diffusion_pytorch_model.safetensors"

Space = Literal["latent", "pixel"]
M = TypeVar("M", bound=ModelMixin)


@dataclass(frozen=True, kw_only=True)
class ViewSampling:
    """How a view model is sampled; see :class:`humansplat.pipelines.view_synthesis.ViewSynthesizer`."""

    num_steps: int = 8
    sampler: Sampler = "dpm"
    guidance: tuple[float, float] = (1.0, 1.0)
    """At the front and at the back; 1 is none."""
    sigma_max: float = 80.0
    """Highest noise level; SV3D's own sampler begins at 700, where steps are wasted."""
    sigma_min: float = SIGMA_MIN
    """Lowest above 0."""

    def sigmas(self) -> Tensor:
        """The noise levels, falling to 0."""
        return karras_sigmas(self.num_steps, min(self.sigma_min, self.sigma_max), self.sigma_max)


@dataclass(frozen=True, kw_only=True)
class WeightsFolder:
    """A folder that was found, and checked as far as it brings checksums."""

    name: str
    """What the user called it."""
    path: Path
    image_size: int
    """Side of the canonical crop that the models were trained with, pixels."""
    sha256: dict[str, str]
    """Of every weight file, by its path within the folder."""
    num_inputs: int = 1
    """Views whose latents the reconstructor was trained with: the photo's, or all four."""
    space: Space = "latent"
    """Whether it reads the autoencoder's latents or the pixels themselves."""
    photo_alone: bool = True
    """Whether it was trained to do with the photo's latent, too."""
    view_sampling: ViewSampling = field(default_factory=ViewSampling)
    """How its view model is sampled, if it has one."""

    @property
    def has_view_model(self) -> bool:
        """Whether it can make the unseen views' latents."""
        return (self.path / VIEW_MODEL).is_dir()


def find_weights(name_or_dir: str | Path) -> WeightsFolder:
    """Find weights by a folder's path, the name of weights that ship, or a name on the Hugging Face hub.

    Raises:
        UserError: If there are none, or files differ from their checksums.
    """
    path = _locate(str(name_or_dir))
    try:
        values = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        image_size = int(values["image_size"])
        num_inputs, space = values.get("num_inputs", 1), values.get("space", "latent")
        photo_alone, sampling = values.get("photo_alone", num_inputs == 1), values.get("view_sampling", {})
    except FileNotFoundError as error:
        raise UserError(f"{path} holds no {CONFIG}; give a folder of weights, such as weights/small") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / CONFIG} does not state the image_size; write the weights anew") from error
    if num_inputs not in (1, 4) or space not in get_args(Space):
        raise UserError(
            f"{path / CONFIG} states {num_inputs!r} inputs in {space!r} space, but there are 1 or 4 in "
            f"{' or '.join(get_args(Space))} space; the weights are of another version"
        )
    digests = {file.relative_to(path).as_posix(): sha256_of(file) for file in sorted(path.rglob("*.safetensors"))}
    _check_sums(path, digests)
    return WeightsFolder(
        name=str(name_or_dir),
        path=path,
        image_size=image_size,
        sha256=digests,
        num_inputs=num_inputs,
        space=space,
        photo_alone=bool(photo_alone),
        view_sampling=view_sampling(sampling, str(path / CONFIG)),
    )


def view_sampling(values: object, where: str = "the command line") -> ViewSampling:
    """Of what ``config.json`` states; what it leaves out is as the class has it.

    Raises:
        UserError: If it is no such thing.
    """
    try:
        given = dict(values)  # type: ignore[call-overload]
        if "guidance" in given:
            front, back = given["guidance"]
            given["guidance"] = (float(front), float(back))
        sampling = ViewSampling(**given)
        sound = (
            int(sampling.num_steps) >= 1
            and min(float(sampling.sigma_max), float(sampling.sigma_min)) > 0
            and sampling.sampler in get_args(Sampler)
        )
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(
            f"{where}: view_sampling {values!r} must be num_steps, sigma_max and sigma_min above 0, guidance of two "
            f"numbers and a sampler, one of {', '.join(get_args(Sampler))}"
        )
    return sampling


def load_module(kind: type[M], folder: Path) -> M:
    """Load a diffusers model in float32 and ``eval`` mode; the file must hold all tensors of the model, and no other.

    Args:
        kind: A ``ModelMixin`` that is also a ``ConfigMixin``.
        folder: As ``save_pretrained`` writes it.

    Raises:
        UserError: If files are missing or broken, or the tensors differ; the names are listed.
    """
    assert issubclass(kind, ConfigMixin)
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHT_FILE)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} lacks {Path(str(error.filename or WEIGHT_FILE)).name}; get the weights anew"
        ) from error
    except (json.JSONDecodeError, SafetensorError) as error:
        raise UserError(f"{folder}: its files are broken ({error}); get the weights anew") from error
    known = set(kind._get_init_keys(kind))
    unknown = sorted(key for key in values if not key.startswith("_") and key not in known)
    if unknown:
        raise UserError(
            f"{folder / CONFIG}: {kind.__name__} has no {', '.join(unknown)}; the weights are of another version"
        )
    module = kind.from_config(values)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_tensors(state, shapes, str(folder), kind.__name__)
    module.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()}, strict=True)
    return module.eval()


def write_checksums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` of all other files of a folder, in the form of ``sha256sum``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CHECKSUMS, "README.md"))
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    with replacing(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    return folder / CHECKSUMS


def shipped_weights() -> dict[str, Path]:
    """The weights that came with the package, by name."""
    for root in _weight_roots():
        found = {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CONFIG}"))}
        if found:
            return found
    return {}


def shipped_lifter(body: str) -> Path:
    """Folder of the lifter that came with the package for a body model, held against its checksums.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    for root in _weight_roots():
        folder = root / LIFTERS / body
        if (folder / CONFIG).is_file():
            _check_sums(folder, {})
            return folder
    raise UserError(
        f"no lifter for the body model {body!r} lies in {LIFTERS}/{body} of the weights; install them anew"
    )


def _weight_roots() -> tuple[Path, Path]:
    """In a wheel the weights lie inside the package, in a clone beside it."""
    package = Path(humansplat.__file__).parent
    return package / "weights", package.parent / "weights"


def _locate(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    shipped = shipped_weights()
    if name in shipped:
        return shipped[name]
    return _download(name, sorted(shipped))


def _download(name: str, shipped: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    known = f"no folder {name!r} exists, and the weights that ship are {', '.join(shipped) or 'none'}"
    if name.count("/") != 1:
        raise UserError(f"{known}; give a folder, or OWNER/NAME on the Hugging Face hub")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", CHECKSUMS]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{known}; the Hugging Face hub did not give {name!r} ({reason})") from error


def _check_sums(folder: Path, digests: dict[str, str]) -> None:
    """Hold a folder against its checksums; ``digests`` has those of the weight files, which are large to read."""
    sums = folder / CHECKSUMS
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            raise UserError(f"{folder} lacks {name}, which its {CHECKSUMS} lists; get the weights anew")
        if (digests.get(name) or sha256_of(file)) != expected:
            raise UserError(f"{file} is damaged: it differs from {CHECKSUMS}; get the weights anew")
