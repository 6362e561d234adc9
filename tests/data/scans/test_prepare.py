"""From scans in every layout to a data set that readers read; broken off, shared out, and with broken scans in it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_scans
from torch.testing import assert_close

from humansplat.data.format import read_manifest, read_person
from humansplat.data.holding import holding
from humansplat.data.prepare import Prepared, prepare
from humansplat.data.scans.reading import read_scan
from humansplat.errors import UserError
from humansplat.geometry.projection import orbit, project

SMALL = {"size": 32, "ring_cameras": 2, "samples": 1, "progress": False, "workers": 0, "factory": toy_scans.factory}


def make(scans: Path, out: Path, **options: object) -> Prepared:
    return prepare(scans, out, **{**SMALL, **options})  # type: ignore[arg-type]


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["thuman2", "2k2k", "customhumans", "generic"])
def test_people_of_every_layout_face_plus_z_on_the_ground(prepared_folders: dict[str, Path], layout: str):
    root = prepared_folders[layout]
    names = {
        "thuman2": ["0000", "0001"],
        "2k2k": ["00000", "00001"],
        "customhumans": ["0003_01", "0007_02"],
        "generic": ["berta", "clara", "scan"],
    }
    assert [line["name"] for line in read_manifest(root)] == names[layout]
    truth = toy_scans.person()
    for name in names[layout]:
        person = read_person(root / name, truth)
        assert person.roles == ("input", *["orthogonal"] * 3, *["whole"] * 4, *["half"] * 4, *["face"] * 4)
        upright = truth.vertices - torch.tensor([truth.joints[0, 0], 0.0, truth.joints[0, 2]])
        across = truth.vertices.new_tensor(np.asarray(toy_scans.body_left(truth)))
        assert abs(float(across[2])) < 0.05  # the toy faces +Z but for what its arms do to the trunk
        assert_close(person.body.vertices, upright, atol=0.06, rtol=0)
        assert person.body.vertices[:, 1].min().abs() < 1e-4
        assert person.body.joints[0, [0, 2]].abs().max() < 1e-4
        meta = json.loads((root / name / "meta.json").read_text())
        assert (meta["source"], meta["scan"]["layout"], meta["flags"]) == ("scan", layout, [])


@pytest.mark.parametrize("layout", ["thuman2", "2k2k", "generic"])
def test_the_stored_matrix_carries_the_scan_to_its_body_and_back(
    layout_folders: dict[str, Path], prepared_folders: dict[str, Path], layout: str
):
    for line in read_manifest(prepared_folders[layout]):
        person = read_person(prepared_folders[layout] / str(line["name"]), toy_scans.person())
        source = person.meta["scan"]["file"]  # type: ignore[index]
        scan = read_scan(layout_folders[layout] / source)
        matrix = np.array(person.meta["normalization"]["matrix"])  # type: ignore[index]
        world = np.concatenate([mesh.vertices for mesh in scan.meshes]) @ matrix[:3, :3].T + matrix[:3, 3]
        if len(world) != len(person.body.vertices):
            world = world[toy_scans.corners_of_seams()]
        assert np.abs(world - person.body.vertices.numpy()).max() < 2e-3
        turn = matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))
        assert_close(turn @ turn.T, np.eye(3), atol=1e-9, rtol=0)
        back = np.linalg.inv(matrix)
        again = world @ back[:3, :3].T + back[:3, 3]
        found = np.concatenate([mesh.vertices for mesh in scan.meshes])
        assert np.abs(again - (found if len(found) == len(again) else found[toy_scans.corners_of_seams()])).max() < (
            1e-6 * np.abs(again).max()
        )


def test_pictures_parts_cameras_and_body_tell_the_same_story(prepared_folders: dict[str, Path]):
    person = read_person(prepared_folders["thuman2"] / "0001", toy_scans.person())
    assert ((person.parts > 0) == (person.images[..., 3] >= 128)).mean() > 0.97
    assert person.normals is not None
    assert person.depth is not None
    cameras, body = person.cameras, person.body
    for view in range(8):
        xy, depth = project(body.vertices, cameras.viewmats[view], cameras.Ks[view])
        rows, columns = np.nonzero(person.images[view, ..., 3])
        assert_close(xy.amin(dim=0), torch.tensor([columns.min(), rows.min()]).float(), atol=1.6, rtol=0)
        assert_close(xy.amax(dim=0), torch.tensor([columns.max() + 1, rows.max() + 1]).float(), atol=1.6, rtol=0)
        seen = person.depth[view][person.depth[view] > 0] / 1000
        assert depth.min() - 0.01 < seen.min() < depth.min() + 0.05
        assert seen.max() < depth.max() + 0.01
        towards = (person.normals[view, ..., :3] / 127.5 - 1) @ cameras.viewmats[view, :3, :3].numpy().T
        assert (towards[person.images[view, ..., 3] == 255][:, 2] < 0.1).mean() > 0.98
    front = body.vertices[body.parts == 15]  # the head
    for view in range(12, 16):
        inside, _ = project(front, cameras.viewmats[view], cameras.Ks[view])
        assert ((inside >= 0) & (inside <= 64)).all()
        assert (person.parts[view] == 16).mean() > 0.15
    ring = orbit(cameras[4], cameras.centers[4:8].mean(dim=0), torch.arange(4) * torch.pi / 2)
    assert_close(ring.viewmats, cameras.viewmats[4:8], atol=1e-4, rtol=0)


def test_labels_of_the_scan_are_those_of_the_body_under_it(prepared_folders: dict[str, Path]):
    person = read_person(prepared_folders["2k2k"] / "00001", toy_scans.person())
    rows = []
    for view in range(4):
        xy, depth = project(person.body.vertices, person.cameras.viewmats[view], person.cameras.Ks[view])
        columns, lines = xy.floor().long().clamp(0, 63).T
        assert person.depth is not None
        visible = depth < torch.from_numpy(person.depth[view].astype(np.float32))[lines, columns] / 1000 + 0.01
        shown = torch.from_numpy(person.parts[view].astype(np.int64))[lines, columns]
        rows.append((shown == person.body.parts + 1)[visible & (shown > 0)])
    assert torch.cat(rows).float().mean() > 0.8  # the rest lies on the borders, a pixel is 3 cm wide


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise there")
def test_a_run_that_was_killed_is_gone_on_with(layout_folders: dict[str, Path], tmp_path: Path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(3):
        shutil.copy(layout_folders["2k2k"] / "00000" / "00000.ply", scans / f"p{index}.ply")
    make(scans, tmp_path / "whole")
    out = tmp_path / "broken"
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import toy_scans;"
        "from humansplat.data.prepare import prepare;"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), size=32, ring_cameras=2, samples=1, progress=False, workers=0,"
        "factory=toy_scans.deadly_factory)"
    )
    command = [sys.executable, "-c", program, str(scans), str(out), str(Path(__file__).parent)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["p0"]
    # What death in the middle of writing leaves.
    shutil.copytree(out / "p0", out / ".0123abcd.p2")
    with (out / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"name":"p')
    before = (out / "p0" / "meta.json").stat().st_mtime_ns
    assert make(scans, out).num_new == 2
    assert (out / "p0" / "meta.json").stat().st_mtime_ns == before
    assert contents(out) == contents(tmp_path / "whole")
    assert make(scans, out).num_new == 0


def test_shards_are_disjoint_and_together_everything(layout_folders: dict[str, Path], tmp_path: Path):
    scans, out = layout_folders["generic"], tmp_path / "shared"
    made = [make(scans, out, shard=f"{part}/2") for part in (1, 2)]
    assert [part.names for part in made] == [("berta", "scan"), ("clara",)]
    make(scans, tmp_path / "whole")
    shared, whole = contents(out), contents(tmp_path / "whole")
    assert {name for name in shared.keys() - whole.keys() if not name.startswith(".")} == {
        "manifest.1-of-2.jsonl",
        "manifest.2-of-2.jsonl",
    }
    assert {name: shared[name] for name in whole} == whole
    for wrong in ("3/2", "0/2", "\u00b2/3", "1"):
        with pytest.raises(UserError, match="give i/n"):
            make(scans, out, shard=wrong)
    with pytest.raises(UserError, match="made in shards"):  # they may be at work
        make(scans, out)
    for part in out.glob("*manifest.*-of-*.jsonl*"):
        part.unlink()
    with holding(out), pytest.raises(UserError, match="another run is at work"):
        make(scans, out)
    assert make(scans, out).num_new == 0
    assert contents(out) == whole


def test_broken_scans_are_told_and_cost_the_others_nothing(layout_folders: dict[str, Path], tmp_path: Path):
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(layout_folders["generic"] / "clara.obj", scans / "good.obj")
    vertices, faces, uvs, uv_faces = toy_scans.surface()
    (scans / "empty.obj").write_text("")
    (scans / "points.obj").write_text("v 0 0 0\nv 0 1 0\nv 1 0 0\n")
    broken = vertices.copy()
    broken[5] = np.nan
    toy_scans.write_obj(scans / "nan.obj", broken, faces)
    toy_scans.write_ply(scans / "infinite.ply", np.where(vertices > 1.5, np.inf, vertices), faces)
    toy_scans.write_obj(scans / "x" / "bare.obj", vertices, faces, uvs, uv_faces, picture="gone.jpg")
    toy_scans.write_obj(scans / "y" / "huge.obj", vertices, faces, uvs, uv_faces, picture="huge.png")
    toy_scans.write_png_header(scans / "y" / "huge.png", 40_000, 40_000)
    toy_scans.write_ply_header(scans / "million.ply", 20_000_000)
    (scans / "torn.glb").write_bytes(b"glTF\x02\x00\x00\x00")
    toy_scans.write_ply(scans / "flat.ply", vertices * [1, 1, 0], faces)
    toy_scans.write_obj(scans / "dwarf.obj", 0.01 * vertices, faces)
    out = tmp_path / "out"
    made = make(scans, out)
    reasons = {
        "empty": "nothing in it", "points": "no faces", "nan": "not numbers", "infinite": "not numbers",
        "bare": "gone.jpg", "huge": "too large", "million": "20,000,000 faces", "torn": "not a glTF",
        "flat": "no scan", "dwarf": "--unit",
    }  # fmt: skip
    assert made.names == ("good",)
    assert made.failed.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in made.failed[name]
    assert json.loads((out / "failures.json").read_text()) == made.failed
    for path in [*scans.glob("*.obj"), *scans.glob("*.ply"), *scans.glob("*.glb"), scans / "x" / "bare.obj"]:
        if path.stem not in ("good", "dwarf"):
            path.unlink()
    shutil.rmtree(scans / "y")
    shutil.copy(scans / "good.obj", scans / "dwarf.obj")  # mended: it is tried again
    again = make(scans, out)
    assert (again.num_new, again.failed) == (1, {})
    assert not (out / "failures.json").exists()
    assert [line["name"] for line in toy_scans.manifest(out)] == ["dwarf", "good"]


def test_flags_reach_the_manifest(layout_folders: dict[str, Path], tmp_path: Path):
    made = make(layout_folders["thuman2"], tmp_path / "out", factory=toy_scans.flagging_factory)
    assert made.flagged == {"0001": ("the arm is not where the scan's is",)}
    lines = {str(line["name"]): line for line in read_manifest(tmp_path / "out")}
    assert "flags" not in lines["0000"]
    assert lines["0001"]["flags"] == ["the arm is not where the scan's is"]


def test_other_settings_other_scans_and_mistakes_are_refused(layout_folders: dict[str, Path], tmp_path: Path):
    scans, out = layout_folders["thuman2"], tmp_path / "out"
    make(scans, out)
    with pytest.raises(UserError, match="size 32, now 48"):
        make(scans, out, size=48)
    other = tmp_path / "other" / "sub"
    shutil.copytree(scans, other)
    with pytest.raises(UserError, match="another folder"):
        make(other.parent, out)
    for wrong in ({"unit": "ell"}, {"up": "x"}, {"workers": -1}, {"body_model": "mhr"}, {"gender": "male"}):
        with pytest.raises(UserError):
            make(scans, tmp_path / "new", **wrong)
    with pytest.raises(UserError, match="lifter"):
        make(scans, tmp_path / "new", factory=toy_scans.missing_factory)
    with pytest.raises(UserError, match="no such folder"):
        make(tmp_path / "nowhere", tmp_path / "new")
