"""Put the input views of a folder of people side by side.

humansplat synthesize --assets ASSETS --out DATA --num 64 --seed 64
python tools/contact_sheet.py DATA --out docs/images/synthetic-people.jpg
"""

import argparse
from pathlib import Path

from PIL import Image

from humansplat.data.format import read_manifest

BACKGROUND = (240, 240, 240)


def contact_sheet(data: Path, count: int, columns: int, size: int) -> Image.Image:
    """The first people of a data set over light grey, row by row.

    Args:
        data: Folder with a manifest.
        count: People.
        columns: People a row.
        size: Side of a person's picture, pixels.
    """
    names = [record["name"] for record in read_manifest(data)][:count]
    sheet = Image.new("RGB", (columns * size, -(-len(names) // columns) * size), BACKGROUND)
    for index, name in enumerate(names):
        with Image.open(data / str(name) / "images" / "000.png") as file:
            picture = file.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")
        sheet.paste(picture, ((index % columns) * size, index // columns * size), picture)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--columns", type=int, default=11)
    parser.add_argument("--size", type=int, default=144)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(options.data, options.count, options.columns, options.size)
    sheet.save(options.out, quality=82, optimize=True)


if __name__ == "__main__":
    main()
