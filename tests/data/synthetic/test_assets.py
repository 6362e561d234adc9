import shutil
from pathlib import Path

import numpy as np
import pytest

from humansplat.data.synthetic import AssetLibrary, generate_person
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.textures import LOGOS, without_logo
from humansplat.errors import UserError


def test_a_missing_folder_is_refused_with_the_name_of_the_official_archive(tmp_path: Path, template: Template) -> None:
    with pytest.raises(UserError, match=r"makehuman_system_assets_cc0\.zip"):
        AssetLibrary(tmp_path / "none", body=template.body)


@pytest.mark.parametrize("kind", ["clothes", "hair", "skins", "poses"])
def test_a_missing_kind_is_named(tmp_path: Path, tiny_assets: Path, template: Template, kind: str) -> None:
    shutil.copytree(tiny_assets, tmp_path / "assets")
    shutil.rmtree(tmp_path / "assets" / kind)
    with pytest.raises(UserError, match=rf"has no {kind}/.*makehuman_system_assets_cc0\.zip"):
        AssetLibrary(tmp_path / "assets", body=template.body)


def test_a_folder_without_held_out_assets_cannot_make_validation_people(
    tmp_path: Path, tiny_assets: Path, template: Template
) -> None:
    shutil.copytree(tiny_assets, tmp_path / "assets")
    shutil.rmtree(tmp_path / "assets" / "skins" / "middleage_african_male")
    library = AssetLibrary(tmp_path / "assets", body=template.body, texture_size=32)
    with pytest.raises(UserError, match="no skins for the split 'validation'"):
        generate_person(library, 0, "validation")


def test_a_proxy_and_its_mesh_must_agree(tmp_path: Path, tiny_assets: Path, template: Template) -> None:
    shutil.copytree(tiny_assets, tmp_path / "assets")
    mesh = tmp_path / "assets" / "hair" / "short01" / "short01.obj"
    mesh.write_text("v 0 0 0\n" + mesh.read_text())
    library = AssetLibrary(tmp_path / "assets", body=template.body)
    with pytest.raises(UserError, match=r"short01\.mhclo binds \d+ vertices but short01\.obj has"):
        library.pieces("hair", "train")


def test_an_outfit_falls_into_pieces_by_where_they_are_worn(tiny_library: AssetLibrary) -> None:
    assert [piece.asset for piece in tiny_library.pieces("shoes", "validation")] == ["shoes03"]
    assert [piece.asset for piece in tiny_library.pieces("hair", "train")] == ["short01"]
    upper, lower = (tiny_library.pieces(role, "train") for role in ("upper", "lower"))  # type: ignore[arg-type]
    assert [piece.asset for piece in (*upper, *lower)] == ["male_casualsuit02"] * 2
    assert upper[0].cloth.canonical[:, 1].mean() > lower[0].cloth.canonical[:, 1].max()


def test_a_fitted_piece_lies_outside_the_skin_it_was_made_on(tiny_library: AssetLibrary) -> None:
    template = tiny_library.template
    piece = tiny_library.pieces("shoes", "train")[0]
    fitted = piece.fit(template.canonical)
    np.testing.assert_allclose(fitted.vertices, piece.cloth.vertices)
    np.testing.assert_allclose(fitted.weights.sum(1), 1, atol=1e-5)


def test_textures_are_reduced_once(tiny_library: AssetLibrary) -> None:
    path = tiny_library.skins("train")[0].texture
    assert tiny_library.texture(path) is tiny_library.texture(path)
    assert tiny_library.texture(path, 8).shape == (8, 8, 4)


def test_an_unreadable_texture_is_named(tiny_library: AssetLibrary, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read the texture .*broken\.png"):
        tiny_library.texture(tmp_path / "broken.png")


def test_a_trade_mark_is_filled_from_around_it() -> None:
    asset, (left, top, right, bottom) = next(iter(LOGOS.items()))
    texture = np.full((100, 100, 4), 90, np.uint8)
    middle = (round((top + bottom) * 50), round((left + right) * 50))
    texture[middle[0] - 3 : middle[0] + 3, middle[1] - 3 : middle[1] + 3] = 250
    assert np.abs(without_logo(texture, asset).astype(int) - 90).max() <= 1
    assert without_logo(texture, "other") is texture


def test_the_real_outfits_split_into_tops_and_trousers(real_library: AssetLibrary) -> None:
    for split in ("train", "validation"):
        for role in ("upper", "lower", "shoes", "hair"):
            assert len(real_library.pieces(role, split)) >= 2  # type: ignore[arg-type]
    assert len(real_library.expressions) > 10
