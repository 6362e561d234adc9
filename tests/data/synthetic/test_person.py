import json

import numpy as np
import pytest

from humansplat.data.synthetic import AssetLibrary, SyntheticPerson, generate_person
from humansplat.data.synthetic.coverage import cover
from humansplat.data.synthetic.splits import asset_split

SEEDS = range(4)


@pytest.fixture(scope="module")
def tiny_people(tiny_library: AssetLibrary) -> list[SyntheticPerson]:
    return [generate_person(tiny_library, seed, "train") for seed in SEEDS]


@pytest.fixture(scope="module")
def real_people(real_library: AssetLibrary) -> list[SyntheticPerson]:
    return [generate_person(real_library, seed, "train") for seed in range(4)]


def check_person(person: SyntheticPerson) -> None:
    body = person.body.vertices.numpy()
    assert body[:, 1].min() == pytest.approx(0, abs=1e-4)
    root = person.body.joints[0].numpy()
    np.testing.assert_allclose(root[[0, 2]], 0, atol=1e-4)
    for mesh in person.meshes:
        assert np.isfinite(mesh.vertices).all(), mesh.name
        assert mesh.faces.max() < len(mesh.vertices)
        assert mesh.parts is not None
        assert mesh.parts.max() < 24
        assert mesh.uvs is not None
        assert (mesh.faces if mesh.uv_faces is None else mesh.uv_faces).max() < len(mesh.uvs)
        used = mesh.vertices[np.unique(mesh.faces)]
        assert used[:, 1].min() > -0.2, mesh.name
        # Everything worn stays near the body that wears it.
        assert (used.min(0) > body.min(0) - 0.6).all(), mesh.name
        assert (used.max(0) < body.max(0) + 0.6).all(), mesh.name
    json.dumps(person.meta)


def poking_share(person: SyntheticPerson) -> float:
    """Share of the visible skin that has cloth just under it and none above: cloth that it broke through."""
    skin, *others = person.meshes
    cloth = [(mesh.vertices, mesh.faces) for mesh in others if mesh.alpha == "opaque" and mesh.specular != 0.05]
    used = np.unique(skin.faces)
    assert skin.normals is not None
    points, outward = skin.vertices[used], skin.normals[used]
    return float((cover(points, outward, cloth, poke=0.012).sunk > 0).mean())


def test_people_stand_on_the_ground_in_one_piece(tiny_people: list[SyntheticPerson]) -> None:
    for person in tiny_people:
        check_person(person)


def test_the_same_seed_gives_the_same_person(tiny_library: AssetLibrary, tiny_people: list[SyntheticPerson]) -> None:
    again = generate_person(tiny_library, 3, "train")
    assert again.meta == tiny_people[3].meta
    assert [mesh.name for mesh in again.meshes] == [mesh.name for mesh in tiny_people[3].meshes]
    for first, second in zip(tiny_people[3].meshes, again.meshes, strict=True):
        np.testing.assert_array_equal(first.vertices, second.vertices)
        np.testing.assert_array_equal(first.texture, second.texture)
        np.testing.assert_array_equal(first.faces, second.faces)


def test_different_seeds_give_different_people(tiny_people: list[SyntheticPerson]) -> None:
    assert len({json.dumps(person.meta, sort_keys=True) for person in tiny_people}) == len(tiny_people)


def test_skin_under_clothes_is_taken_away(tiny_people: list[SyntheticPerson]) -> None:
    kept = [len(person.meshes[0].faces) / len(person.body.faces) for person in tiny_people]
    assert max(kept) < 0.93  # under a skirt, which may slip, legs stay
    assert np.mean(kept) < 0.8


def splits_used(person: SyntheticPerson) -> set[str]:
    assets = person.meta["assets"]
    assert isinstance(assets, list)
    return {asset_split(*name.split("/")) for name in assets}


def test_people_use_only_assets_of_their_split(tiny_library: AssetLibrary, tiny_people: list[SyntheticPerson]) -> None:
    person = generate_person(tiny_library, 5, "validation")
    assert person.meta["assets"] == [
        "clothes/male_casualsuit05",
        "clothes/shoes03",
        "hair/short04",
        "poses/standing05",
        "skins/middleage_african_male",
    ]
    for person in tiny_people:
        assert splits_used(person) == {"train"}


@pytest.mark.parametrize("seed", [0, 1])
def test_real_validation_people_wear_never_seen_assets(real_library: AssetLibrary, seed: int) -> None:
    person = generate_person(real_library, seed, "validation")
    check_person(person)
    assert splits_used(person) == {"validation"}
    assert sum(name.startswith("clothes/") for name in person.meta["assets"]) >= 2  # type: ignore[attr-defined]


def test_real_people_are_whole_and_dressed(real_people: list[SyntheticPerson]) -> None:
    for person in real_people:
        check_person(person)
        assert len(person.meshes) >= 5
        assert splits_used(person) == {"train"}


def test_little_skin_pokes_through_real_clothes(real_people: list[SyntheticPerson]) -> None:
    shares = [poking_share(person) for person in real_people]
    assert np.mean(shares) < 0.01, shares
    assert max(shares) < 0.04, shares
