"""The toy tasks, in files of their own because tests run one as a script, too; and small people on disk.

People are naked bodies coloured by where on the body a pixel lies.
"""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.models import load_body_model
from humansplat.data.dataset import PeoplePool
from humansplat.data.format import PersonRecord, manifest_line, write_person
from humansplat.data.people import BodyTemplate
from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.render.body_maps import rasterize_body, sample_surface
from humansplat.structures import Cameras

SIZE = 64


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module ``toy.py``."""
    return load_script("toy")


@pytest.fixture(scope="session")
def pair() -> ModuleType:
    """The module ``pair.py``."""
    return load_script("pair")


@pytest.fixture(scope="session")
def body() -> AnnyBody:
    return AnnyBody.load()


@pytest.fixture(scope="session")
def pool(body, tmp_path_factory) -> PeoplePool:
    root = tmp_path_factory.mktemp("people")
    for number in range(2):
        write_naked_person(root, f"person-{number}", body, seed=number)
    pool = PeoplePool(root, BodyTemplate.of(body), capacity=2, image_size=SIZE, num_workers=1)
    pool.load(2)
    return pool


@pytest.fixture(scope="session")
def write_painted_person(smpl_folder) -> Callable[..., None]:
    """``write_painted_person(root, name, seed)`` writes an SMPL-X body with pictures of nothing, rings included."""
    body = load_body_model("smplx", folder=smpl_folder)

    def write(root: Path, name: str, seed: int, size: int = 16) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in body.parameter_shapes.items()}
        posed = body.pose({**body.neutral(), **draw, "transl": body.neutral()["transl"]})
        camera = Cameras(
            viewmats=look_at(torch.tensor([0.0, 0.9, 4.0]), torch.tensor([0.0, 0.9, 0.0]), torch.tensor([0.0, 1, 0])),
            Ks=intrinsics(math.radians(32), size, size),
            width=size,
            height=size,
        )
        cameras = orbit(camera, torch.zeros(3), torch.arange(4).repeat(4) * (math.pi / 2))
        roles = ("input", *["orthogonal"] * 3, *["whole"] * 4, *["half"] * 4, *["face"] * 4)
        images = torch.rand(len(roles), 4, 4, 4, generator=generator)
        images = torch.nn.functional.interpolate(images.movedim(-1, 1), size=size, mode="bilinear").movedim(1, -1)
        pixels = (images * 255).byte().numpy()
        record = PersonRecord(
            images=pixels, parts=pixels[..., 0], cameras=cameras, roles=roles, body=posed, meta={"split": "train"}
        )
        write_person(root / name, record)
        with (root / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
            manifest.write(manifest_line(root / name) + "\n")

    return write


def write_naked_person(root: Path, name: str, body: AnnyBody, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = body.neutral()
    parameters["phenotypes"] = torch.rand(len(body.phenotype_names), generator=generator) * 0.4 + 0.3
    posed = body(**parameters)
    middle = torch.tensor([0.0, 0.9, 0.0])
    camera = Cameras(
        viewmats=look_at(torch.tensor([0.0, 0.9, 4.0]), middle, torch.tensor([0.0, 1.0, 0.0])),
        Ks=intrinsics(math.radians(32), SIZE, SIZE),
        width=SIZE,
        height=SIZE,
    )
    cameras = orbit(camera, middle, torch.tensor([0, 0.5, 1, 1.5, 0.2, 0.9, 1.6]) * math.pi)
    batched = body(**{key: value[None] for key, value in parameters.items()})
    views = Cameras(viewmats=cameras.viewmats[None], Ks=cameras.Ks[None], width=SIZE, height=SIZE)
    maps = rasterize_body(batched, views, sample_surface(body.canonical, body.faces), size=SIZE)
    colors = ((maps.canonical[0] + 1) / 2).clamp(0, 1) * maps.hit[0, ..., None]
    images = (torch.cat([colors, maps.hit[0, ..., None].float()], dim=-1) * 255).byte().numpy()
    record = PersonRecord(
        images=images,
        parts=maps.hit[0].byte().numpy(),
        cameras=cameras,
        roles=("input", *["orthogonal"] * 3, *["novel"] * 3),
        body=posed,
        meta={"split": "train", "seed": seed},
    )
    write_person(root / name, record)
    with (root / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        manifest.write(manifest_line(root / name) + "\n")
