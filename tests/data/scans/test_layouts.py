"""Which files are scans, whose they are, and what the people are called."""

from pathlib import Path

import pytest

from humansplat.data.scans.layouts import find_scans, person_names
from humansplat.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_thuman_scans_find_their_published_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scans = touch(
        tmp_path / "THuman2.0_Release", "0000/0000.obj", "0000/material0.jpeg", "0001/0001.obj", "0001/material0.mtl",
        "0001/.hidden.obj",
    )  # fmt: skip
    touch(tmp_path / "THuman2.0_smplx", "0001/smplx_param.pkl", "0001/mesh_smplx.obj")
    found = find_scans(scans)
    assert [(scan.name, scan.layout, scan.up) for scan in found] == [
        ("0000", "thuman2", "y"),
        ("0001", "thuman2", "y"),
    ]
    assert [scan.fit and scan.fit.parent.name for scan in found] == [None, "0001"]
    monkeypatch.chdir(scans)
    assert [scan.fit for scan in find_scans(Path("."))] == [scan.fit for scan in found]
    touch(scans, "smplx/0000/smplx_param.pkl", "smplx/0000/mesh_smplx.obj")
    assert len(find_scans(scans)) == 2  # bodies are no scans
    assert find_scans(scans)[0].fit == scans / "smplx/0000/smplx_param.pkl"
    elsewhere = touch(tmp_path / "elsewhere", "0000/smplx_param.pkl")
    assert find_scans(scans, fits=elsewhere)[0].fit == elsewhere / "0000/smplx_param.pkl"
    with pytest.raises(UserError, match="no body of any of 2 scans"):
        find_scans(scans, fits=touch(tmp_path / "wrong", "0009/smplx_param.pkl"))


def test_the_other_sets_are_told_by_their_names(tmp_path: Path):
    touch(tmp_path / "2k2k", "00003/00003.ply", "01234/01234.obj", "01234/01234.png")
    assert [(scan.name, scan.layout) for scan in find_scans(tmp_path / "2k2k")] == [
        ("00003", "2k2k"),
        ("01234", "2k2k"),
    ]
    custom = touch(
        tmp_path / "custom", "mesh/0003_01/mesh-f00101.obj", "mesh/0007_02/mesh-f00101.obj",
        "mesh/0007_02/mesh-f00009.obj", "smplx/0007_02/mesh-f00101.json", "smplx/0007_02/mesh-f00101_smpl.obj",
    )  # fmt: skip
    found = {scan.name: scan for scan in find_scans(custom)}
    assert found.keys() == {"0003_01", "0007_02", "mesh-f00009"}
    assert found["0007_02"].fit == custom / "smplx/0007_02/mesh-f00101.json"
    assert {scan.layout for scan in find_scans(touch(tmp_path / "own", "a.obj", "b/c.glb"))} == {"generic"}
    assert [scan.path.name for scan in find_scans(tmp_path / "own" / "a.obj")] == ["a.obj"]


def test_people_are_called_by_stem_folder_or_both():
    assert person_names([Path("a/x.obj"), Path("b/y.obj")]) == ["x", "y"]
    assert person_names([Path("a/scan.glb"), Path("b/scan.glb"), Path("b/y.obj")]) == ["a", "b", "y"]
    names = person_names([Path("a/scan.glb"), Path("b/scan.glb"), Path("c/b.obj")])
    assert len(set(names)) == 3
    assert person_names([Path("x/ä ?*.obj")]) == ["ä___"]
    with pytest.raises(UserError, match="both be called a-scan"):
        person_names([Path("k/a/scan.glb"), Path("l/a/scan.glb")])


def test_what_holds_no_scans_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no scan"):
        find_scans(touch(tmp_path / "empty", "notes.txt"))
    with pytest.raises(UserError, match="no such folder"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(UserError, match="scans end in"):
        find_scans(tmp_path / "empty" / "notes.txt")
    with pytest.raises(UserError, match="generic"):
        find_scans(touch(tmp_path / "own", "a.ply"), "thuman2")
