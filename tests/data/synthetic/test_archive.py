"""Zips of assets: what is unpacked, where, and what is refused; a damaged asset costs that asset."""

import logging
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from humansplat.data.synthetic import AssetLibrary, generate_person
from humansplat.data.synthetic.archive import unpacked
from humansplat.data.synthetic.figure import Template
from humansplat.errors import UserError

from .conftest import _write_proxy


def pack(archive: Path, folder: Path, prefix: str = "", **extra: bytes) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(path, prefix + path.relative_to(folder).as_posix())
        for name, content in extra.items():
            packed.writestr(name, content)
    return archive


@pytest.fixture
def pack_folder(tmp_path: Path, tiny_assets: Path) -> Path:
    """Assets with all that the official pack has and nobody needs."""
    folder = tmp_path / "pack"
    shutil.copytree(tiny_assets, folder)
    for name in (
        "proxymeshes/male/male.obj",
        "packs/system.json",
        "rigs/default.mhskel",
        "clothes/shoes01/shoes01.thumb",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


@pytest.mark.parametrize("prefix", ["", "makehuman_system_assets/data/"])
def test_what_people_are_made_of_is_unpacked_and_nothing_else(tmp_path: Path, pack_folder: Path, prefix: str) -> None:
    archive = pack(tmp_path / "assets.zip", pack_folder, prefix)
    folder = unpacked(archive, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    names = {path.name for path in folder.iterdir()}
    assert names == {"clothes", "hair", "skins", "poses"}
    assert (folder / "clothes/shoes01/shoes01.obj").read_bytes() == (
        pack_folder / "clothes/shoes01/shoes01.obj"
    ).read_bytes()
    assert not list(folder.rglob("*.thumb"))


def test_the_same_people_come_out_of_the_zip_and_out_of_the_folder(
    tmp_path: Path, pack_folder: Path, tiny_library: AssetLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMANSPLAT_CACHE", str(tmp_path / "cache"))
    archive = pack(tmp_path / "assets.zip", pack_folder)
    library = AssetLibrary(archive, body=tiny_library.template.body, texture_size=64)
    a, b = generate_person(library, 3, "validation"), generate_person(tiny_library, 3, "validation")
    assert a.meta == b.meta
    for one, other in zip(a.meshes, b.meshes, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)
        np.testing.assert_array_equal(one.texture, other.texture)


def test_a_second_call_unpacks_nothing_and_says_nothing(
    tmp_path: Path, pack_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    archive = pack(tmp_path / "assets.zip", pack_folder)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: unpacked(archive, tmp_path / "cache"), range(4)))
    assert len(folders) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folders.pop().name]
    caplog.clear()
    moved = shutil.copy(archive, tmp_path / "renamed.zip")
    unpacked(Path(moved), tmp_path / "cache")
    assert not caplog.records
    unpacked(pack(tmp_path / "other.zip", pack_folder, **{"hair/b/b.mhclo": b"name b"}), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["../evil.obj", "clothes/../../evil.obj", "/etc/evil.obj", "C:/evil.obj", "clothes\\..\\..\\evil.obj", "."]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, pack_folder: Path, name: str) -> None:
    archive = pack(tmp_path / "assets.zip", pack_folder, **{name: b"v 0 0 0"})
    with pytest.raises(UserError, match="unsafe to unpack"):
        unpacked(archive, tmp_path / "deep" / "cache")
    assert not list(tmp_path.rglob("evil.obj"))
    assert not (tmp_path / "deep").exists()


def test_links_are_refused(tmp_path: Path, pack_folder: Path) -> None:
    archive = pack(tmp_path / "assets.zip", pack_folder)
    with zipfile.ZipFile(archive, "a") as packed:
        link = zipfile.ZipInfo("clothes/shoes01/link.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="holds the link"):
        unpacked(archive, tmp_path / "cache")


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, pack_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("humansplat.data.synthetic.archive.MAX_BYTES", 30_000_000)
    archive = pack(tmp_path / "assets.zip", pack_folder, **{"clothes/bomb/bomb.png": bytes(30_000_000)})
    with pytest.raises(UserError, match="would unpack to"):
        unpacked(archive, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damage_and_foreign_zips_are_named(tmp_path: Path, pack_folder: Path) -> None:
    archive = pack(tmp_path / "assets.zip", pack_folder)
    whole = archive.read_bytes()
    (tmp_path / "short.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"short\.zip cannot be unpacked .*download it again"):
        unpacked(tmp_path / "short.zip", tmp_path / "cache")
    flipped = bytearray(whole)
    flipped[200:260] = bytes(60)
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(UserError, match="download it again"):
        unpacked(tmp_path / "flipped.zip", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())  # neither a half folder nor a name for it
    (tmp_path / "empty").mkdir()
    foreign = pack(tmp_path / "foreign.zip", tmp_path / "empty", **{"photos/a.jpg": b""})
    with pytest.raises(UserError, match=r"holds no MakeHuman assets .*only photos"):
        unpacked(foreign, tmp_path / "cache")


def test_names_in_utf8_without_a_flag_come_out_right(tmp_path: Path, pack_folder: Path) -> None:
    archive = pack(tmp_path / "assets.zip", pack_folder, **{"hair/short01/Hårfärg.PNG": b"x"})
    plain = archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:
        flag = packed.getinfo("hair/short01/Hårfärg.PNG").header_offset + 6
    central = plain.rindex("hair/short01/Hårfärg.PNG".encode()) - 46 + 8
    patched = bytearray(plain)
    for place in (flag, central):
        patched[place : place + 2] = b"\0\0"
    archive.write_bytes(patched)
    assert (unpacked(archive, tmp_path / "cache") / "hair/short01/Hårfärg.PNG").is_file()


def test_a_bad_asset_costs_that_asset_and_is_named_once(
    tmp_path: Path, tiny_assets: Path, template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "assets"
    shutil.copytree(tiny_assets, root)
    folder = root / "clothes"
    good = folder / "male_casualsuit02"
    broken = {
        "male_casualsuit03": ("male_casualsuit02.mhmat", b"diffuseTexture gone.png"),
        "male_casualsuit04": (
            "male_casualsuit02.mhclo",
            b"basemesh alpha7\n" + (good / f"{good.name}.mhclo").read_bytes(),
        ),
        "male_elegantsuit01": ("male_casualsuit02.obj", b"v 0 0 0\nf 1 2 3"),
        "male_worksuit01": ("male_casualsuit02.png", b"no picture"),
    }
    for name, (file, content) in broken.items():
        shutil.copytree(good, folder / name)
        (folder / name / file).write_bytes(content)
    shutil.copytree(good, folder / "female_casualsuit01")
    library = AssetLibrary(root, body=template.body, texture_size=32)
    for _ in range(2):
        assert {piece.asset for piece in library.pieces("upper", "train")} == {
            "male_casualsuit02",
            "female_casualsuit01",
        }
    assert len(caplog.records) == 4
    assert all(record.getMessage().startswith("left out the asset clothes/") for record in caplog.records)


def test_other_writers_habits_are_understood(tmp_path: Path, tiny_assets: Path, template: Template) -> None:
    """Upper-case suffixes and names, backslashes, shared skin textures, costumes, hidden twins."""
    root = tmp_path / "assets"
    shutil.copytree(tiny_assets, root)
    shoes = root / "clothes" / "shoes01"
    (shoes / "shoes01.mhclo").rename(shoes / "shoes01.MHCLO")
    (shoes / "shoes01.obj").rename(shoes / "Shoes01.OBJ")
    (shoes / "materials").mkdir()
    (shoes / "shoes01.png").rename(shoes / "materials" / "Leather.PNG")
    (shoes / "shoes01.mhmat").write_text("diffuseTexture materials\\leather.png\n")
    (shoes / "._shoes01.mhclo").write_bytes(b"\0\5\26\7")
    skins = root / "skins"
    (skins / "textures").mkdir()
    Image.new("RGB", (8, 8), (120, 90, 70)).save(skins / "textures" / "dark.png")
    for name in ("young_african_male", "young_african_male_sweat", "young_african_male_special_suit"):
        (skins / "young_african_male").mkdir(exist_ok=True)
        (skins / "young_african_male" / f"{name}.mhmat").write_text("diffuseTexture ../textures/dark.png\n")
    library = AssetLibrary(root, body=template.body, texture_size=32)
    (piece,) = library.pieces("shoes", "train")
    assert piece.texture is not None
    assert piece.texture.name == "Leather.PNG"
    assert [skin.name for skin in library.skins("train")] == ["young_african_male", "young_caucasian_male"]


def test_hats_are_worn_and_capes_are_not(tmp_path: Path, tiny_assets: Path, template: Template) -> None:
    root = tmp_path / "assets"
    shutil.copytree(tiny_assets, root)
    place = template.canonical[template.skin_ids][template.skin_faces]
    top = place[..., 1].max()
    _write_proxy(root / "clothes" / "male_casualsuit03", template, (place[..., 1] > top - 0.08).all(1), 0.02)
    behind = (place[..., 2] < 0.04).all(1) & (np.abs(place[..., 0]) < 0.2).all(1)
    cape = behind & (place[..., 1] > 0.5).all(1) & (place[..., 1] < 1.5).all(1)
    _write_proxy(root / "clothes" / "male_casualsuit04", template, cape, 0.05)
    library = AssetLibrary(root, body=template.body, texture_size=32)
    assert [piece.asset for piece in library.pieces("hat", "train")] == ["male_casualsuit03"]
    assert {piece.asset for piece in library.pieces("extra", "train")} == {"male_casualsuit04"}
    for role in ("upper", "lower", "full"):
        assert "male_casualsuit04" not in {piece.asset for piece in library.pieces(role, "train")}  # type: ignore[arg-type]
