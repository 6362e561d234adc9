"""A folder of made-up assets in MakeHuman's formats, and the real one where it lies beside the repository."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from humansplat.body.anny import AnnyBody
from humansplat.data.synthetic import AssetLibrary
from humansplat.data.synthetic.cloth import normals
from humansplat.data.synthetic.figure import Template, load_template

SCALES = "x_scale 5399 11998 1.4\nz_scale 962 5320 1.9\ny_scale 791 881 2.3\n"


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template(AnnyBody.load())


def _write_proxy(folder: Path, template: Template, keep: np.ndarray, lift: float) -> None:
    """A garment: the skin faces marked in ``keep``, lifted by ``lift`` metres, each vertex bound to its origin."""
    folder.mkdir(parents=True)
    faces = template.skin_faces[keep]
    used, compact = np.unique(faces, return_inverse=True)
    skin = template.canonical[template.skin_ids]
    outward = normals(skin, template.skin_faces, np.arange(len(skin)))[used] * lift * 10
    ids = template.skin_ids[used]
    lines = [f"{i} {i} {i} 1 0 0 {x:.5f} {y:.5f} {z:.5f}" for i, (x, y, z) in zip(ids, outward, strict=True)]
    name = folder.name
    header = f"name {name}\nobj_file {name}.obj\nmaterial {name}.mhmat\n{SCALES}verts 0\n"
    (folder / f"{name}.mhclo").write_text(header + "\n".join(lines) + "\n\ndelete_verts\n0 - 3 7\n")
    obj = [f"v {x} {y} {z}" for x, y, z in skin[used]] + [f"vt {x:.4f} {y / 2:.4f}" for x, y, z in skin[used] + 0.5]
    obj += ["f " + " ".join(f"{k + 1}/{k + 1}" for k in face) for face in compact.reshape(-1, 3)]
    (folder / f"{name}.obj").write_text("\n".join(obj) + "\n")
    (folder / f"{name}.mhmat").write_text(f"# made up\nname {name}\ndiffuseTexture {name}.png\ntransparent False\n")
    Image.fromarray(np.full((64, 64, 4), [90, 120, 60, 255], np.uint8)).save(folder / f"{name}.png")


def bvh_text(angle: float) -> str:
    """A pose of two joints: the root at rest, the left upper arm turned about the file's Y axis."""
    return (
        "HIERARCHY\nROOT root\n{\n OFFSET 0 0 0\n"
        " CHANNELS 6 Xposition Yposition Zposition Xrotation Yrotation Zrotation\n"
        " JOINT upperarm01.L\n {\n  OFFSET 1 0 0\n  CHANNELS 3 Xrotation Yrotation Zrotation\n"
        "  End Site\n  {\n   OFFSET 1 0 0\n  }\n }\n}\n"
        f"MOTION\nFrames: 1\nFrame Time: 0.04\n0 0 0 0 0 0 0 {angle} 0\n"
    )


@pytest.fixture(scope="session")
def tiny_assets(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Path:
    """One top, trousers, pair of shoes, hair style, skin and pose for each split."""
    root = tmp_path_factory.mktemp("assets")
    height = template.canonical[template.skin_ids][template.skin_faces][..., 1]
    bands: dict[str, Callable[[], np.ndarray]] = {
        "upper": lambda: (height > 1.0).all(1) & (height < 1.5).all(1),
        "lower": lambda: (height > 0.1).all(1) & (height < 0.98).all(1),
        "shoes": lambda: (height < 0.12).all(1),
        "hair": lambda: (height > 1.76).all(1),
    }
    for suffix, clothes, shoes, hair, skin, pose in (
        ("train", "male_casualsuit02", "shoes01", "short01", "young_caucasian_male", "standing01"),
        ("validation", "male_casualsuit05", "shoes03", "short04", "middleage_african_male", "standing05"),
    ):
        _write_proxy(root / "clothes" / clothes, template, bands["lower"]() | bands["upper"](), 0.015)
        _write_proxy(root / "clothes" / shoes, template, bands["shoes"](), 0.01)
        _write_proxy(root / "hair" / hair, template, bands["hair"](), 0.01)
        folder = root / "skins" / skin
        folder.mkdir(parents=True)
        (folder / f"{skin}.mhmat").write_text("diffuseTexture skin.png\n")
        Image.fromarray(np.full((16, 16, 3), [200, 150, 120], np.uint8)).save(folder / "skin.png")
        (root / "poses").mkdir(exist_ok=True)
        (root / "poses" / f"{pose}.bvh").write_text(bvh_text(20.0 if suffix == "train" else 40.0))
    return root


@pytest.fixture(scope="session")
def tiny_library(tiny_assets: Path, template: Template) -> AssetLibrary:
    return AssetLibrary(tiny_assets, body=template.body, texture_size=64)


@pytest.fixture(scope="session")
def real_library(template: Template) -> AssetLibrary:
    """The real assets: named by HUMANSPLAT_ASSETS, or in ``shared`` beside the repository."""
    beside = Path(__file__).resolve().parents[4] / "shared"
    shared = Path(os.environ.get("HUMANSPLAT_ASSETS", beside))
    root = shared / "makehuman" if (shared / "makehuman").is_dir() else shared
    if not (root / "clothes").is_dir():
        pytest.skip("no MakeHuman assets: name their folder in HUMANSPLAT_ASSETS")
    return AssetLibrary(root, body=template.body, texture_size=128)
