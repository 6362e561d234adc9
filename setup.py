"""Package metadata. The tools' settings are in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

REQUIRED = [
    "torch>=2.6",
    "numpy>=2.0",
    "scipy>=1.13",
    "numba>=0.61",
    "einops>=0.8",
    "jaxtyping>=0.3",
    "safetensors>=0.5",
    "huggingface_hub>=0.30",
    "diffusers>=0.36",
    "transformers>=4.48",
    "filelock>=3.13",
    "gsplat>=1.5",
    "gsply>=0.4",
    "trimesh>=4.5",
    "embreex>=4.4",
    "pillow>=11",
    "imageio-ffmpeg>=0.6",
    "psutil>=6",
    "pyyaml>=6",
    "tqdm>=4.66",
    "tyro>=0.9",
]

EXTRAS = {
    # A photograph in: landmarks and mask, and HEIC files.
    "photo": ["ai-edge-litert>=2.0", "pillow-heif>=0.20"],
    # tools/train.py
    "train": ["accelerate>=1.3", "tensorboard>=2.18"],
    # SMPL and SMPL-X bodies; code and model files are for non-commercial use.
    "smplx": ["smplx>=0.1.28"],
    "dev": [
        "beartype>=0.20",
        "codespell>=2.3",
        "hypothesis>=6.100",
        "import-linter>=2.1",
        "mypy>=1.15",
        "plyfile>=1.1",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "scikit-image>=0.25",
        "types-PyYAML",
        "types-tqdm",
        "webdataset>=1.0",
    ],
}


def version() -> str:
    """The version that the package itself states."""
    source = (ROOT / "humansplat" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError("humansplat/__init__.py states no __version__")
    return match[1]


def weight_packages() -> list[str]:
    """``weights/`` travels in the wheel as ``humansplat.weights``, one package a folder."""
    folders = sorted(path for path in (ROOT / "weights").rglob("*") if path.is_dir())
    names = [".".join(("humansplat", "weights", *path.relative_to(ROOT / "weights").parts)) for path in folders]
    return ["humansplat.weights", *names] if names else []


setup(
    name="humansplat",
    version=version(),
    description="One photograph of a person in, a complete 3D Gaussian person out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["humansplat", "humansplat.*"]), *weight_packages()],
    package_dir={"humansplat.weights": "weights"},
    package_data={
        "": ["py.typed", "*.npz", "*.json", "*.safetensors", "*.csv", "*.txt", "*.md", "*.yaml", "SHA256SUMS"],
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["humansplat = humansplat.cli:main"]},
)
