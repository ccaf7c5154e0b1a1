"""A static embedder of the same bytes as nvembed-tiny, distilled from the same labels for longer.

    python experiments/016_nvembed_tiny/control.py --work DIR

DIR: where build.py has made sets, teacher and labels. What nvembed-tiny spends on blocks goes into
32,768 pieces here: 8.4 M parameters both. Leaves DIR/control/static/model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import build

VOCABULARY = 32_768
STEPS = 12_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    args = parser.parse_args()
    whole = args.work.resolve()
    work = whole / "control"
    work.mkdir(exist_ok=True)
    for name in ("sets", "teacher", "labels"):
        if not (work / name).exists():
            (work / name).symlink_to(whole / name)
    changes = {
        "model.overrides.backbone.vocab_size": str(VOCABULARY),
        "stage1.steps": str(STEPS),
    }
    build.make_tokenizer(work, build.STATIC, changes)
    build.make_table(work, build.STATIC, changes)
    build.run(build.STATIC, work / "sets", work / "static", work / "table", work, changes)


if __name__ == "__main__":
    main()
