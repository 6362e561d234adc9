"""Pack a data set into tar shards: ``python tools/make_shards.py DATA --out DIR --shard-size 512``.

DATA is a folder that ``humansplat synthesize`` or ``humansplat prepare`` wrote. The shards follow the webdataset
convention; ``data.source: shards`` trains on them, from a disk or from a URL. Started again after a break, it goes on.
"""

import argparse
import logging
import sys
from pathlib import Path

from humansplat.errors import UserError


def main() -> int:
    """Parse and pack; 2 is returned for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--shard-size", type=float, default=512.0, metavar="MIB", help="size of a shard (%(default)s)")
    parser.add_argument(
        "--with",
        dest="extras",
        nargs="*",
        default=[],
        choices=["parts", "normals", "depth"],
        help="pack these folders, too; training reads none of them",
    )
    parser.add_argument("--flagged", action="store_true", help="pack people, too, whose body is flagged as wrong")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the people (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return pack(arguments)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def pack(arguments: argparse.Namespace) -> int:
    """Make the shards with a bar on stderr."""
    from tqdm import tqdm

    from humansplat.data.shard_writing import make_shards

    with tqdm(desc="shards", unit="person") as bar:

        def show(done: int, known: int) -> None:
            bar.total = known
            bar.update(done - bar.n)

        paths = make_shards(
            arguments.data,
            arguments.out,
            shard_mib=arguments.shard_size,
            extras=arguments.extras,
            flagged=arguments.flagged,
            seed=arguments.seed,
            progress=show,
        )
    print(f"{len(paths)} shards in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
