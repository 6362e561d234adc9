"""Clothed, posed, textured people made from MakeHuman assets and procedural garments."""

from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.person import SyntheticPerson, generate_person

__all__ = ["AssetLibrary", "SyntheticPerson", "generate_person"]
