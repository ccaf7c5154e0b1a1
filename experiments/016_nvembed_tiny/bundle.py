"""Puts the model that build.py made into the package, with its card.

    python experiments/016_nvembed_tiny/bundle.py --work DIR

The card is card.md beside this file with the tables of results.json in the place of {systems} and
{sets}.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from score import TINY
from table import runs, sets_table, systems_table

from nvembed_jax.checkpoint.resolve import BUNDLED_FOLDER


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    args = parser.parse_args()
    found = runs()
    card = (Path(__file__).parent / "card.md").read_text("utf8")
    for name, lines in (("systems", systems_table(found)), ("sets", sets_table(found))):
        card = card.replace(f"{{{name}}}", "\n".join(lines))
    shutil.rmtree(BUNDLED_FOLDER, ignore_errors=True)
    shutil.copytree(args.work / TINY, BUNDLED_FOLDER)
    (BUNDLED_FOLDER / "README.md").write_text(card, "utf8")
    size = sum(path.stat().st_size for path in BUNDLED_FOLDER.iterdir())
    print(f"{BUNDLED_FOLDER}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
