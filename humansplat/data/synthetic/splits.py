"""Which assets are for training and which only for validation people."""

import zlib
from typing import Literal

Split = Literal["train", "validation"]

VALIDATION_ASSETS: dict[str, frozenset[str]] = {
    "clothes": frozenset({"female_elegantsuit01", "male_casualsuit05", "shoes03", "shoes05"}),
    "hair": frozenset({"bob02", "short04"}),
    "skins": frozenset({"young_asian_female", "middleage_african_male"}),
    "poses": frozenset({"fight04", "standing04", "standing05"}),
}
"""Names (folder or file stem) that no training person ever uses."""

TRAINING_ASSETS: dict[str, frozenset[str]] = {
    "clothes": frozenset(
        {
            *("female_casualsuit01", "male_casualsuit02", "male_casualsuit03", "male_casualsuit04"),
            *("male_elegantsuit01", "male_worksuit01", "shoes01", "shoes02", "shoes04"),
        }
    ),
    "hair": frozenset({"long01", "ponytail01", "short01", "short02"}),
    "skins": frozenset(
        {
            *("middleage_asian_male", "middleage_caucasian_male", "young_african_male"),
            *("young_asian_male", "young_caucasian_female2", "young_caucasian_male"),
        }
    ),
    "poses": frozenset(
        {
            *("fight01", "fight02", "fly01", "fly02", "gym01"),
            *("standing01", "standing02", "standing06"),
        }
    ),
}
"""Names that validation people never use."""

UNLISTED_SHARE = 5
"""One in so many of the assets that neither table names goes to validation."""


def asset_split(kind: str, name: str) -> Split:
    """The split of an asset: by table, or for other assets by a hash of its name that never changes.

    Args:
        kind: ``clothes``, ``hair``, ``skins`` or ``poses``.
        name: Folder name, or the stem of a pose file.
    """
    if name in VALIDATION_ASSETS.get(kind, ()):
        return "validation"
    if name in TRAINING_ASSETS.get(kind, ()):
        return "train"
    return "validation" if zlib.crc32(f"{kind}/{name}".encode()) % UNLISTED_SHARE == 0 else "train"
