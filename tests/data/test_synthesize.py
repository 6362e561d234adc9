"""The writer of synthetic people: the same bytes however the work was cut up."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch.testing import assert_close

from humansplat.data import synthesize as module
from humansplat.data.format import read_manifest, read_person
from humansplat.data.holding import holding
from humansplat.data.rig import draw_rig, framed
from humansplat.data.scan_file import scan_glb
from humansplat.data.synthesize import Synthesized, person_seed, synthesize
from humansplat.errors import UserError
from humansplat.geometry.projection import orbit, project

sys.path.insert(0, str(Path(__file__).parent))  # here too, because worker processes inherit the path
import toy_people

SMALL = {"num_novel": 3, "num_closeups": 1, "size": 32, "progress": False}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    (folder / "skin.txt").write_text("fair")
    return folder


def make(assets: Path, out: Path, num: int, **options: object) -> Synthesized:
    return synthesize(assets, out, num, **{"workers": 0, "factory": toy_people.factory, **SMALL, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def four(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people made in one go in this process."""
    out = tmp_path_factory.mktemp("four") / "people"
    make(assets, out, 4)
    return out


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def template() -> toy_people.PosedBody:
    return toy_people.make_person(0, "train").body


def test_a_worker_process_writes_the_same_bytes(assets: Path, four: Path, tmp_path: Path):
    made = make(assets, tmp_path / "people", 4, workers=1)  # several: test_production.py, whose makers import less
    assert made.names == tuple(f"train-{index:06d}" for index in range(4))
    assert contents(tmp_path / "people") == contents(four)


def test_resuming_equals_not_stopping(assets: Path, four: Path, tmp_path: Path):
    out = tmp_path / "people"
    make(assets, out, 2)
    # What a killed run leaves: a person without its line, one half-written, a line cut short, a hole.
    shutil.copytree(four / "train-000003", out / "train-000003")
    shutil.copytree(four / "train-000002", out / ".0123abcd.train-000002")
    shutil.rmtree(out / "train-000000")
    with (out / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"name":"train-0000')
    made = make(assets, out, 4)
    assert made.num_new == 2
    assert contents(out) == contents(four)


def test_an_interrupt_keeps_complete_people_only(
    assets: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "people"
    write_person, written = module.write_person, []

    def interrupted(*arguments: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write_person(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_person", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(assets, out, 4)
    assert sorted(path.name for path in out.iterdir()) == [
        ".manifest.jsonl.lock",
        "dataset.json",
        "manifest.jsonl",
        "train-000000",
        "train-000001",
    ]
    monkeypatch.undo()
    make(assets, out, 4)
    assert contents(out) == contents(four)


def test_a_second_run_does_nothing_and_a_longer_one_goes_on(assets: Path, four: Path, tmp_path: Path):
    out = tmp_path / "people"
    shutil.copytree(four, out)
    assert make(assets, out, 4).num_new == 0
    assert make(assets, out, 2).names == ("train-000000", "train-000001")
    assert contents(out) == contents(four)
    assert make(assets, out, 5).num_new == 1
    assert [line["name"] for line in read_manifest(out)] == [f"train-{index:06d}" for index in range(5)]


def test_of_two_runs_in_one_folder_the_later_is_refused(assets: Path, four: Path, tmp_path: Path):
    out = tmp_path / "people"
    shutil.copytree(four, out)
    at_work = out / ".0123abcd.train-000004"
    at_work.mkdir()
    with holding(out), pytest.raises(UserError, match="another run is at work"):
        make(assets, out, 4)
    assert at_work.is_dir()
    assert make(assets, out, 4).num_new == 0
    assert not at_work.exists()


def test_people_differ_and_depend_on_seed_and_split(assets: Path, four: Path, tmp_path: Path):
    def first_picture(root: Path, name: str) -> bytes:
        return (root / name / "images" / "000.png").read_bytes()

    make(assets, tmp_path / "seed", 1, seed=1)
    make(assets, tmp_path / "split", 1, split="validation")
    pictures = {first_picture(four, f"train-{index:06d}") for index in range(4)}
    pictures.add(first_picture(tmp_path / "seed", "train-000000"))
    pictures.add(first_picture(tmp_path / "split", "validation-000000"))
    assert len(pictures) == 6
    meta = json.loads((tmp_path / "split" / "validation-000000" / "meta.json").read_text())
    assert meta["split"] == meta["person"]["split"] == "validation"


def test_training_people_drawn_otherwise_are_not_mixed(assets: Path, four: Path, tmp_path: Path):
    out = tmp_path / "people"
    shutil.copytree(four, out)
    settings = json.loads((out / "dataset.json").read_text())
    assert settings.pop("people") == module.TRAINING_PEOPLE
    (out / "dataset.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="people None"):
        make(assets, out, 5)


def test_seeds_of_people_do_not_collide():
    seeds = {person_seed(s, split, i) for s in range(3) for split in ("train", "validation") for i in range(500)}  # type: ignore[arg-type]
    assert len(seeds) == 3000
    assert max(seeds) < 2**63


def test_pictures_parts_cameras_and_body_tell_the_same_story(four: Path):
    person = read_person(four / "train-000001", template())
    assert person.roles == ("input", "orthogonal", "orthogonal", "orthogonal", "novel", "novel", "closeup")
    assert ((person.parts > 0) == (person.images[..., 3] >= 128)).mean() > 0.98
    body = person.body.vertices
    for view in range(4):
        hand, _ = project(body[16:].mean(dim=0, keepdim=True), person.cameras.viewmats[view], person.cameras.Ks[view])
        rows, columns = np.nonzero(person.parts[view] == 21)
        if len(rows):  # it may be behind the trunk
            center = torch.tensor([columns.mean() + 0.5, rows.mean() + 0.5], dtype=torch.float32)
            assert (center - hand[0]).norm() < 3
    assert_close(
        orbit(person.cameras[0], torch.zeros(3), torch.arange(4) * torch.pi / 2).viewmats,
        person.cameras.viewmats[:4],
        atol=1e-5,
        rtol=0,
    )


def test_framing_is_exact(rng: torch.Generator):
    points = torch.randn(200, 3, generator=rng, dtype=torch.float64) * torch.tensor([0.3, 0.9, 0.2])
    for azimuth, elevation, fov, fill in ((0.0, 0.0, 0.5, 0.85), (2.0, 0.4, 0.7, 0.7), (-1.0, -0.2, 0.44, 0.95)):
        camera = framed(points, azimuth, elevation, fov, fill, 100)
        xy, depth = project(points, camera.viewmats, camera.Ks)
        low, high = xy.amin(dim=0), xy.amax(dim=0)
        assert (depth > 0).all()
        assert (high - low).max().item() == pytest.approx(100 * fill, abs=0.05)
        assert_close(0.5 * (low + high), torch.full((2,), 50.0, dtype=torch.float64), atol=0.05, rtol=0)
        outward = camera.centers - points.mean(dim=0)
        assert torch.atan2(outward[0], outward[2]).item() == pytest.approx(azimuth, abs=0.2)


def test_the_rig_is_as_documented():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 3)) * [0.25, 0.45, 0.15] + [0.0, 0.9, 0.0]
    azimuths, fills = [], []
    for _ in range(30):
        cameras, roles = draw_rig(points, rng, 64, 8, 2)
        assert roles == ("input", *["orthogonal"] * 3, *["novel"] * 6, *["closeup"] * 2)
        assert torch.equal(cameras.Ks[:4], cameras.Ks[:1].expand(4, 3, 3))
        centers = cameras.centers
        azimuths.append(torch.atan2(centers[0, 0], centers[0, 2]).abs().item())
        xy, _ = project(torch.from_numpy(points).float(), cameras.viewmats[0], cameras.Ks[0])
        fills.append(((xy.amax(dim=0) - xy.amin(dim=0)).max() / 64).item())
        tilt = torch.asin(-cameras.viewmats[:, 2, 1])
        assert (tilt > -0.22).all()
        assert (tilt < 0.54).all()
        around = torch.atan2(centers[4:, 0], centers[4:, 2])
        assert around.sort().values.diff().max() < 2 * 2 * torch.pi / 8 + 0.2  # stratified: no large gap
    assert 0.6 < np.mean(np.array(azimuths) < np.radians(45)) < 0.95
    assert min(fills) > 0.8
    assert max(fills) < 0.9


def test_scans_are_whole_textured_meshes(assets: Path, tmp_path: Path):
    make(assets, tmp_path / "people", 1, scans=True)
    scene = trimesh.load_scene(tmp_path / "people" / "train-000000" / "scan.glb")
    person = read_person(tmp_path / "people" / "train-000000", template())
    assert len(scene.geometry) == 3
    assert_close(torch.from_numpy(scene.bounds).float()[1], person.body.vertices.amax(dim=0), atol=1e-4, rtol=0)
    for piece in scene.geometry.values():
        assert piece.visual.material.baseColorTexture.size == (8, 8)


def test_scans_keep_texture_seams():
    mesh = toy_people.make_person(1, "train").meshes[0]
    assert mesh.uvs is not None
    split = toy_people.ShadedMesh(
        vertices=mesh.vertices, faces=mesh.faces, uvs=mesh.uvs[mesh.faces].reshape(-1, 2),
        uv_faces=np.arange(mesh.faces.size).reshape(-1, 3), texture=mesh.texture, alpha="cutout",
    )  # fmt: skip
    piece = next(iter(trimesh.load_scene(io.BytesIO(scan_glb([split])), file_type="glb").geometry.values()))
    assert_close(piece.vertices[piece.faces], mesh.vertices[mesh.faces], atol=1e-6, rtol=0, check_dtype=False)
    assert_close(piece.visual.uv[piece.faces], mesh.uvs[mesh.faces], atol=1e-6, rtol=0, check_dtype=False)
    assert piece.visual.material.alphaMode == "MASK"


def test_degenerate_people_are_left_out_until_they_are_many(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(RuntimeError, match="could not be made"):
        make(assets, tmp_path / "people", 6, factory=toy_people.failing_factory)
    monkeypatch.setattr(module, "MAX_FAILED_SHARE", 1.0)
    made = make(assets, tmp_path / "people", 6, factory=toy_people.failing_factory)
    assert 0 < len(made.failed) < 6
    assert all("degenerate draw" in trouble for trouble in made.failed.values())
    assert [line["name"] for line in read_manifest(tmp_path / "people")] == list(made.names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "num is 0"),
        ({"size": 8}, "size is 8"),
        ({"samples": 0}, "samples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"num_closeups": 4}, "4 close-ups among 3"),
    ],
)
def test_values_out_of_range_are_refused(assets: Path, tmp_path: Path, options: dict[str, int], message: str):
    num = options.pop("num", 1)
    with pytest.raises(UserError, match=message):
        make(assets, tmp_path / "people", num, **options)
    assert not (tmp_path / "people").exists()


def test_folders_that_hold_something_else_are_refused(assets: Path, four: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no asset folder"):
        make(tmp_path / "nowhere", tmp_path / "people", 1)
    with pytest.raises(UserError, match="seed 0, now 5"):
        make(assets, four, 4, seed=5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        make(assets, tmp_path / "full", 1)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no skin.txt"):
        make(tmp_path / "bare", tmp_path / "people", 1)
