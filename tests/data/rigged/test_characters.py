"""People drawn from a folder of rigged characters, with a fitter that is told the answer."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from glb_files import Builder, box_humanoid, mixamo_body
from scipy.spatial.transform import Rotation

from humansplat.data.people_source import character_generator, library_generator, people_source
from humansplat.data.rigged.bodies import guessed_body, moved_along
from humansplat.data.rigged.character import Character
from humansplat.data.rigged.characters import CharacterLibrary, generate_character
from humansplat.data.rigged.poses import draw_turns
from humansplat.data.synthesize import synthesize
from humansplat.data.synthetic.figure import DUMMY_HEIGHT, Template
from humansplat.data.synthetic.splits import asset_split
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, ScanFit


class KnownFitter:
    """Gives the start back, or the body as bound; flags some calls."""

    def __init__(self, template: Template, flagged: Sequence[int] = ()) -> None:
        self.body, self.flagged, self.calls = template.body, flagged, 0
        self.place = torch.from_numpy(template.joints[0])

    def __call__(self, meshes: Sequence[ShadedMesh], *, start: PosedBody | None = None) -> ScanFit:
        flags = ("planted",) if self.calls in self.flagged else ()
        self.calls += 1
        phenotypes = self.body.neutral()["phenotypes"]
        phenotypes[self.body.phenotype_names.index("height")] = DUMMY_HEIGHT
        found = start or self.body.pose({"phenotypes": phenotypes, "translation": self.place})
        return ScanFit(body=found, facing=0.3, landmark_error=0.01, coverage=1.0, outside=0.0, flags=flags)


@pytest.fixture(scope="module")
def folder(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two characters to train on, one held out, and a broken file."""
    root = tmp_path_factory.mktemp("characters")
    names = {"train": [], "validation": []}
    for index in range(40):
        names[asset_split("characters", f"set/person{index}")].append(f"set/person{index}")
    for name in (*names["train"][:2], names["validation"][0]):
        box_humanoid().save(root / f"{name}.glb")
    (root / "set" / f"{names['train'][2].removeprefix('set/')}.glb").write_bytes(b"glTF broken")
    return root


@pytest.fixture(scope="module")
def human(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one character, which is the default body, to train on."""
    root = tmp_path_factory.mktemp("human")
    name = next(f"p{index}" for index in range(99) if asset_split("characters", f"p{index}") == "train")
    mixamo_body(template).save(root / f"{name}.glb")
    return root


def library(folder: Path, template: Template, flagged: Sequence[int] = ()) -> CharacterLibrary:
    return CharacterLibrary(folder, template=template, fitter=KnownFitter(template, flagged), texture_size=16)


def test_people_stand_in_the_house_frame_with_the_body_inside(human: Path, template: Template) -> None:
    made = library(human, template)
    for seed in range(2):
        person = generate_character(made, seed)
        body = person.body
        assert abs(float(body.vertices[:, 1].min())) < 1e-4
        np.testing.assert_allclose(body.joints[0, [0, 2]].numpy(), 0.0, atol=1e-4)
        (mesh,) = person.meshes
        # The fitter knows the shape; the pose comes by way of the rig, whose spine and fingers are simpler.
        distance = np.linalg.norm(mesh.vertices - body.vertices.numpy(), axis=1)
        assert distance.mean() < 0.02
        assert mesh.parts is not None
        assert person.meta["assets"] == [f"characters/{person.meta['character']}"]
        assert body.parameters is not None
        again = template.body.pose(body.parameters)
        torch.testing.assert_close(again.vertices, body.vertices, atol=1e-4, rtol=0)


def test_equal_seeds_are_equal_whatever_was_drawn_before(folder: Path, template: Template) -> None:
    fresh, used = library(folder, template), library(folder, template)
    generate_character(used, 0)
    a, b = generate_character(fresh, 7), generate_character(used, 7)
    assert a.meta == b.meta
    np.testing.assert_array_equal(a.meshes[0].vertices, b.meshes[0].vertices)
    assert a.meshes[0].color == b.meshes[0].color


def test_whole_characters_are_held_out(folder: Path, template: Template) -> None:
    made = library(folder, template)
    drawn = {split: {made.name(path) for path in made.of_split(split)} for split in ("train", "validation")}  # type: ignore[arg-type]
    assert not drawn["train"] & drawn["validation"]
    assert generate_character(made, 0, "validation").meta["character"] in drawn["validation"]


def test_a_broken_character_is_named_once(folder: Path, template: Template, caplog: pytest.LogCaptureFixture) -> None:
    made = library(folder, template)
    for path in made.of_split("train") * 2:
        made.usable(path)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "left out the character set/person" in told[0]
    assert "not a valid glTF" in told[0]


def test_flagged_fits_are_drawn_again_and_given_up_at_last(folder: Path, template: Template) -> None:
    person = generate_character(library(folder, template, flagged=[1, 2]), 0)
    assert len(person.meta["poses_left_out"]) == 2  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fits no pose of set/person.*planted"):
        generate_character(library(folder, template, flagged=range(1, 99)), 0)


def test_a_pose_that_the_fitter_refuses_costs_that_pose(folder: Path, template: Template) -> None:
    made = library(folder, template)
    known, calls = made.fitter, []

    def fitter(meshes: Sequence[ShadedMesh], *, start: PosedBody | None = None) -> ScanFit:
        calls.append(start)
        if len(calls) == 2:
            raise UserError("the scan is 0.3 m high")
        return known(meshes, start=start)

    made.fitter = fitter
    person = generate_character(made, 0)
    assert "0.3 m high" in person.meta["poses_left_out"][0]  # type: ignore[index]


def test_a_character_that_cannot_be_fitted_as_bound_is_left_out(folder: Path, template: Template) -> None:
    with pytest.raises(UserError, match=r"none of the characters .* can be used"):
        generate_character(library(folder, template, flagged=range(99)), 0)


def test_the_body_moves_along_with_the_skeleton(human: Path, template: Template) -> None:
    character = Character(next(human.glob("*.glb")), template)
    assert character.retarget is not None
    guess = guessed_body(character.retarget, template.body)
    hips = character.rest[character.humanoid["left_upper_leg"], :3, 3]
    found = guess.joints[template.joint("upperleg01.L")].numpy()
    assert np.linalg.norm(found - hips) < 0.05
    bound = KnownFitter(template)([]).body
    frames = character.retarget.frames(draw_turns(template, np.random.default_rng(4))[0])
    moved = moved_along(bound, character.retarget, frames, template.body)
    (mesh,) = character.skinned(frames)
    shift = (mesh.vertices - moved.vertices.numpy()).mean(0)
    assert np.linalg.norm(mesh.vertices - moved.vertices.numpy() - shift, axis=1).mean() < 0.02


def test_an_unknown_rig_takes_its_own_poses_and_the_bodys_parts(tmp_path: Path, template: Template) -> None:
    def animate(builder: Builder) -> None:
        times = builder.accessor(np.array([0.0, 1.0], np.float32))
        turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, 1.0]]).as_quat().astype(np.float32)
        sampler = {"input": times, "output": builder.accessor(turns)}
        builder.add(
            "animations", samplers=[sampler], channels=[{"sampler": 0, "target": {"node": 4, "path": "rotation"}}]
        )

    builder = box_humanoid(names=lambda name: f"x{sum(name.encode())}")
    animate(builder)
    builder.save(tmp_path / "alien.glb")
    made = library(tmp_path, template)
    split = asset_split("characters", "alien")
    person = generate_character(made, 1, split)
    assert person.meta["rig"] == "unknown"
    assert str(person.meta["pose"]).startswith("animation 0 at")
    assert person.meshes[0].parts is not None
    # The fitter says that it faces 0.3 radians aside; it is turned to the front.
    front = Rotation.from_rotvec(person.body.parameters["rotations"][0].numpy()).magnitude()  # type: ignore[index]
    assert front == pytest.approx(0.3, abs=1e-3)


def test_the_source_is_told_by_what_a_path_holds(tmp_path: Path, folder: Path) -> None:
    assert people_source(folder).factory is character_generator
    (tmp_path / "pack" / "clothes").mkdir(parents=True)
    assert people_source(tmp_path / "pack").factory is library_generator
    (tmp_path / "fbx").mkdir()
    (tmp_path / "fbx" / "Remy.FBX").write_text("")
    with pytest.raises(UserError, match=r"holds Remy\.FBX; give --assets .*exported as \.glb by Blender"):
        people_source(tmp_path / "fbx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds nothing; give --assets"):
        people_source(tmp_path / "empty")
    with pytest.raises(UserError, match="there is no asset folder"):
        people_source(tmp_path / "none")
    (tmp_path / "one.glb").write_text("")
    with pytest.raises(UserError, match="is one character; give --assets the folder"):
        people_source(tmp_path / "one.glb")
    (tmp_path / "assets.rar").write_text("")
    with pytest.raises(UserError, match="neither a zip file nor a folder"):
        people_source(tmp_path / "assets.rar")


def test_a_split_without_characters_says_how_they_are_shared(tmp_path: Path, template: Template) -> None:
    name = next(f"p{i}" for i in range(99) if asset_split("characters", f"p{i}") == "train")
    box_humanoid().save(tmp_path / f"{name}.glb")
    with pytest.raises(UserError, match=r"has 1 characters and none for the split 'validation': one in 5"):
        library(tmp_path, template).of_split("validation")


def test_characters_are_written_as_a_data_set_and_their_notes_told_once(
    template: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = next(f"p{i}" for i in range(99) if asset_split("characters", f"p{i}") == "train")
    box_humanoid(units=100.0).save(tmp_path / "in" / f"{name}.glb")
    made = library(tmp_path / "in", template)
    done = synthesize(
        tmp_path / "in", tmp_path / "out", 2, workers=0, num_novel=0, size=32, samples=1, progress=False,
        factory=lambda _: lambda seed, split: generate_character(made, seed, split),
    )  # fmt: skip
    assert done.names == ("train-000000", "train-000001")
    assert (tmp_path / "out" / "train-000001" / "parts" / "000.png").is_file()
    told = [record.getMessage() for record in caplog.records if "taken for centimetres" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"{name}: ")
