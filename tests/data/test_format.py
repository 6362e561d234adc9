"""People on disk: everything comes back, nothing half-written is ever seen."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from humansplat.data.format import (
    VERTEX_GRID,
    PersonRecord,
    manifest_line,
    read_cameras,
    read_manifest,
    read_person,
    write_cameras,
    write_person,
)
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at
from humansplat.structures import Cameras

sys.path.insert(0, str(Path(__file__).parent))  # here too, because worker processes inherit the path
from toy_people import make_body


@pytest.fixture
def person() -> PersonRecord:
    generator = np.random.default_rng(0)
    eyes = torch.tensor([[0.0, 1.0, 3.0], [3.0, 1.0, 0.1], [0.2, 1.1, -3.0], [-3.0, 1.0, 0.0], [1.0, 2.0, 2.0]])
    viewmats = look_at(eyes, torch.tensor([[0.0, 0.9, 0.0]]).expand(5, 3), torch.tensor([0.0, 1.0, 0.0]))
    cameras = Cameras(viewmats=viewmats, Ks=intrinsics(0.55, 20, 20).expand(5, 3, 3), width=20, height=20)
    vertices = torch.from_numpy(generator.normal(size=(30, 3)).astype(np.float32))
    return PersonRecord(
        images=generator.integers(0, 256, (5, 20, 20, 4), dtype=np.uint8),
        parts=generator.integers(0, 25, (5, 20, 20), dtype=np.uint8),
        cameras=cameras,
        roles=("input", "orthogonal", "orthogonal", "orthogonal", "novel"),
        body=make_body(vertices, torch.rand(3, generator=torch.Generator().manual_seed(0))),
        meta={"format": 1, "split": "train", "seed": 3, "person": {"pose": "standing"}},
    )


def test_reading_gives_what_was_written(tmp_path: Path, person: PersonRecord):
    write_person(tmp_path / "a", person)
    back = read_person(tmp_path / "a", person.body)
    np.testing.assert_array_equal(back.images, person.images)
    np.testing.assert_array_equal(back.parts, person.parts)
    assert torch.equal(back.cameras.viewmats, person.cameras.viewmats)
    assert torch.equal(back.cameras.Ks, person.cameras.Ks)
    assert back.roles == person.roles
    assert back.meta == person.meta
    assert_close(back.body.vertices, person.body.vertices, atol=0.51 * VERTEX_GRID, rtol=0)
    assert torch.equal(back.body.joints, person.body.joints)
    assert back.body.parameters is not None
    assert person.body.parameters is not None
    assert torch.equal(back.body.parameters["phenotypes"], person.body.parameters["phenotypes"])


def test_single_views_can_be_read(tmp_path: Path, person: PersonRecord):
    write_person(tmp_path / "a", person)
    back = read_person(tmp_path / "a", person.body, views=[4, 0])
    np.testing.assert_array_equal(back.images, person.images[[4, 0]])
    assert torch.equal(back.cameras.viewmats, person.cameras.viewmats[[4, 0]])
    assert back.roles == ("novel", "input")
    with pytest.raises(UserError, match="5 views"):
        read_person(tmp_path / "a", person.body, views=[5])


def test_the_same_record_makes_the_same_bytes(tmp_path: Path, person: PersonRecord):
    write_person(tmp_path / "one" / "a", person, scan=b"glTF")
    write_person(tmp_path / "two" / "a", person, scan=b"glTF")
    assert manifest_line(tmp_path / "one" / "a") == manifest_line(tmp_path / "two" / "a")


def test_writing_again_replaces_everything(tmp_path: Path, person: PersonRecord):
    write_person(tmp_path / "a", person, scan=b"glTF")
    write_person(tmp_path / "a", replace(person, meta={"split": "validation"}))
    assert not (tmp_path / "a" / "scan.glb").exists()
    assert read_person(tmp_path / "a", person.body).meta == {"split": "validation"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_does_not_fit_together_is_refused_and_leaves_nothing(tmp_path: Path, person: PersonRecord):
    for broken in (
        replace(person, images=person.images[:, :19], parts=person.parts[:, :19]),
        replace(person, roles=person.roles[:4]),
        replace(person, cameras=replace(person.cameras, width=21)),
    ):
        with pytest.raises(ValueError, match="5 part maps of 20 x"):
            write_person(tmp_path / "a", broken)
    assert not any(tmp_path.iterdir())


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, person: PersonRecord):
    with pytest.raises(TypeError):
        write_person(tmp_path / "a", replace(person, meta={"split": object()}))
    assert not any(tmp_path.iterdir())


def test_cameras_keep_every_bit(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    cameras = Cameras(
        viewmats=torch.randn(50, 4, 4, generator=generator) * torch.logspace(-6, 6, 50)[:, None, None],
        Ks=torch.randn(50, 3, 3, generator=generator),
        width=7,
        height=9,
    )
    write_cameras(cameras, ["novel"] * 50, tmp_path / "cameras.json")
    back, _ = read_cameras(tmp_path / "cameras.json")
    assert torch.equal(back.viewmats, cameras.viewmats)
    assert torch.equal(back.Ks, cameras.Ks)
    assert (back.width, back.height) == (7, 9)


def test_the_manifest_names_every_file_with_its_digest(tmp_path: Path, person: PersonRecord):
    write_person(tmp_path / "a", person)
    line = json.loads(manifest_line(tmp_path / "a"))
    assert (line["name"], line["split"], line["seed"]) == ("a", "train", 3)
    files = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert set(line["files"]) == files
    content = (tmp_path / "a" / "parts" / "002.png").read_bytes()
    assert line["files"]["parts/002.png"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_cut_last_line_of_the_manifest_does_not_count(tmp_path: Path):
    (tmp_path / "manifest.jsonl").write_text('{"name": "a"}\n{"name": "b"}\n{"na')
    assert [line["name"] for line in read_manifest(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("lost", ["cameras.json", "body.npz", "meta.json", "images/001.png", "parts/001.png"])
def test_missing_and_broken_files_are_named(tmp_path: Path, person: PersonRecord, lost: str):
    write_person(tmp_path / "a", person)
    (tmp_path / "a" / lost).write_bytes(b"not this")
    with pytest.raises(UserError, match=lost.rpartition("/")[2]):
        read_person(tmp_path / "a", person.body)
    (tmp_path / "a" / lost).unlink()
    with pytest.raises(UserError, match=lost.rpartition("/")[2]):
        read_person(tmp_path / "a", person.body)


def test_a_folder_without_manifest_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="manifest"):
        read_manifest(tmp_path)
