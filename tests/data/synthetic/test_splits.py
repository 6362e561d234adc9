import pytest

from humansplat.data.synthetic.splits import TRAINING_ASSETS, VALIDATION_ASSETS, asset_split


@pytest.mark.parametrize("kind", sorted(VALIDATION_ASSETS))
def test_no_asset_is_in_both_tables(kind: str) -> None:
    assert not VALIDATION_ASSETS[kind] & TRAINING_ASSETS[kind]
    for name in VALIDATION_ASSETS[kind]:
        assert asset_split(kind, name) == "validation"
    for name in TRAINING_ASSETS[kind]:
        assert asset_split(kind, name) == "train"


def test_enough_is_held_out() -> None:
    outfits = {name for name in VALIDATION_ASSETS["clothes"] if not name.startswith("shoes")}
    assert len(outfits) >= 2
    assert len(VALIDATION_ASSETS["hair"]) >= 1
    assert len(VALIDATION_ASSETS["skins"]) >= 2
    assert len(VALIDATION_ASSETS["poses"]) >= 2


def test_unlisted_assets_go_to_a_split_by_a_rule_that_never_changes() -> None:
    names = [f"asset{index:02d}" for index in range(40)]
    validation = [name for name in names if asset_split("clothes", name) == "validation"]
    assert 2 <= len(validation) <= 16
    # Pinned: a data set made today must not share assets with a validation set made later.
    assert asset_split("clothes", "female_casualsuit02") == "train"
    assert asset_split("hair", "afro01") == "validation"
