"""What is installed, what is missing, and what each missing thing would give."""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import humansplat
from humansplat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: bool
    detail: str
    """The version or place where it was found; else how to get it."""
    gives: str
    """What it is for."""
    needed: bool = False
    """Whether ``humansplat reconstruct`` needs it."""


@dataclass(frozen=True)
class _Package:
    distribution: str
    module: str
    gives: str
    remedy: str
    needed: bool = False


_PACKAGES = (
    _Package("numpy", "numpy", "arrays", "pip install humansplat", True),
    _Package("numba", "numba", "Gaussians rendered on the CPU", "pip install humansplat", True),
    _Package("diffusers", "diffusers", "the models' weights and latents", "pip install humansplat", True),
    _Package("transformers", "transformers", "view synthesis: the photo's encoder", "pip install humansplat", True),
    _Package("gsply", "gsply", "splat files", "pip install humansplat", True),
    _Package("embreex", "embreex", "pictures of meshes, for synthetic people", "pip install humansplat"),
    _Package("gsplat", "gsplat", "Gaussians rendered on an NVIDIA GPU", "pip install humansplat"),
    _Package(
        "triton",
        "triton",
        "fast windowed attention and view synthesis on an NVIDIA GPU",
        "install torch with CUDA, which brings it",
    ),
    _Package(
        "ai-edge-litert", "ai_edge_litert", "landmarks and mask of a photo", 'pip install "humansplat[photo]"', True
    ),
    _Package("pillow-heif", "pillow_heif", "HEIC photos", 'pip install "humansplat[photo]"'),
    _Package("rembg", "rembg", "another way to cut the person out", "pip install rembg"),
    _Package("imagecodecs", "imagecodecs", "reading .sog splat files", "pip install imagecodecs"),
    _Package("accelerate", "accelerate", "training", 'pip install "humansplat[train]"'),
    _Package("smplx", "smplx", "smplx's own modules (non-commercial)", 'pip install "humansplat[smplx]"'),
)


def examine() -> list[Finding]:
    """Look for everything; nothing is downloaded or changed."""
    return [
        Finding(
            name="python",
            found=sys.version_info >= (3, 11),
            detail=f"{platform.python_version()} on {platform.platform(terse=True)}",
            gives="everything; 3.11 or later",
            needed=True,
        ),
        *_torch(),
        *(_package(package) for package in _PACKAGES),
        _weights(),
        _pose_graph(),
        *examine_body_models(),
        _ffmpeg(),
        _compiler(),
    ]


def told(findings: list[Finding]) -> str:
    """The findings as lines of text."""
    width = max(len(finding.name) for finding in findings)
    lines = [f"humansplat {humansplat.__version__}"]
    for finding in findings:
        mark = "ok     " if finding.found else "MISSING" if finding.needed else "absent "
        lines.append(f"{mark}  {finding.name:{width}}  {finding.detail}  -- {finding.gives}")
    return "\n".join(lines)


def _package(package: _Package) -> Finding:
    found = importlib.util.find_spec(package.module) is not None
    detail = package.remedy
    if found:
        try:
            detail = metadata.version(package.distribution)
        except metadata.PackageNotFoundError:
            detail = "version unknown"
    return Finding(name=package.distribution, found=found, detail=detail, gives=package.gives, needed=package.needed)


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [
            Finding(name="torch", found=False, detail=f"pip install torch ({error})", gives="the models", needed=True)
        ]
    cuda = torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if cuda else "needs an NVIDIA GPU and a CUDA build of torch"
    return [
        Finding(name="torch", found=True, detail=torch.__version__, gives="the models", needed=True),
        Finding(name="gpu", found=cuda, detail=gpu, gives="faster reconstruction, and training"),
    ]


def _weights() -> Finding:
    from humansplat.pipelines.weights import find_weights, shipped_weights

    name, gives = "weights", "reconstruct without --model"
    if "small" not in shipped_weights():
        remedy = "install from a clone or a wheel of this repository, or give --model"
        return Finding(name=name, found=False, detail=remedy, gives=gives)
    try:
        weights = find_weights("small")
    except UserError as error:
        return Finding(name=name, found=False, detail=str(error), gives=gives)
    size = sum((weights.path / file).stat().st_size for file in weights.sha256) / 2**20
    return Finding(name=name, found=True, detail=f"small, {size:.1f} MiB, checked", gives=gives)


def _pose_graph() -> Finding:
    from humansplat.capture.graph import graph_path

    path = graph_path()
    detail = (
        str(path) if path.is_file() else "fetched at the first photo, 36 MB; or python -m humansplat.capture.graph"
    )
    return Finding(name="pose graph", found=path.is_file(), detail=detail, gives="landmarks and mask of a photo")


def examine_body_models() -> list[Finding]:
    """The user's files of the SMPL family; whether they can be read shows when one is loaded."""
    from humansplat.body.smpl_files import (
        FOLDER_VARIABLE,
        GENDERS,
        REGISTER,
        SMPL_NAMES,
        find_smpl_files,
        model_folder,
    )

    folder = model_folder()
    findings = []
    for name in SMPL_NAMES:
        files = find_smpl_files(name, folder) if folder else {}
        details = [f"{gender} {path}" for gender, path in files.items()]
        if missing := [gender for gender in GENDERS if gender not in files]:
            remedy = f"register at {REGISTER[name]}, put {name.upper()}_{missing[0].upper()}.npz or .pkl into "
            remedy += f"{folder / name}" if folder else f"FOLDER/{name} and set {FOLDER_VARIABLE}=FOLDER"
            details.append(f"no {', '.join(missing)}: {remedy}" if files else remedy)
        gives = f"{name} bodies; its files are for non-commercial use"
        findings.append(Finding(name=f"{name} files", found=bool(files), detail="; ".join(details), gives=gives))
    return findings


def _ffmpeg() -> Finding:
    gives = "turntable videos"
    try:
        import imageio_ffmpeg

        return Finding(name="ffmpeg", found=True, detail=Path(imageio_ffmpeg.get_ffmpeg_exe()).name, gives=gives)
    except (ImportError, RuntimeError) as error:
        remedy = f"pip install imageio-ffmpeg, or reconstruct with --no-video ({error})"
        return Finding(name="ffmpeg", found=False, detail=remedy, gives=gives)


def _compiler() -> Finding:
    nvcc = shutil.which("nvcc")
    detail = nvcc or "install the CUDA toolkit of torch's CUDA version"
    return Finding(name="nvcc", found=nvcc is not None, detail=detail, gives="building gsplat once, for an NVIDIA GPU")
