"""Scores nvembed-tiny and what it is held against, with `nvembed evaluate`, into results.json.

    python experiments/016_nvembed_tiny/score.py --work DIR --data FOLDER [--only NAME ...]

DIR: what build.py and control.py left; FOLDER: evaluation sets (docs/evaluate.md). Every system is
scored by the quick protocol at 128 tokens, 1,000 queries or texts a set; what is scored already is
not scored again. The parts' worth is shown by models without them:

    cut/: nvembed-tiny without its decoder layers, without its latent block (trained with them);
    static/model: neither, trained for itself; control/static/model: neither, at the same bytes
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

from nvembed_jax.checkpoint.saving import save_model
from nvembed_jax.checkpoint.store import load_config, load_params

OUT = Path(__file__).parent / "results.json"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = "nvembed-tiny"
MODELS = (
    TINY, MINILM, "table", "static/model", "control/static/model", "distill/model",
    "stages/models/stage1", "cut/no_layers", "cut/no_latent",
)  # fmt: skip
SETTINGS = {"protocol": "quick", "limit": 1000, "seed": 0, "max-length": 128}


def cut(model: Path, out: Path) -> None:
    """The model without its decoder layers, and without its latent block."""
    if not model.exists():
        return
    config = load_config(model)
    params = load_params(model, config)
    backbone = {name: part for name, part in params["backbone"].items() if name != "layers"}
    bare = dataclasses.replace(config.backbone, num_layers=0)
    for name, changed, kept in (
        ("no_layers", {"backbone": bare}, {**params, "backbone": backbone}),
        ("no_latent", {"pooling": "mean"}, {k: v for k, v in params.items() if k != "pooling"}),
    ):
        save_model(out / name, dataclasses.replace(config, **changed), kept, src_folder=model)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=MODELS, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()
    shutil.rmtree(args.work / "cut", ignore_errors=True)
    cut(args.work / TINY, args.work / "cut")
    folders = [str(path.parent) for path in sorted(data.glob("*/task.json"))]
    models = [part for name in args.only for part in ("--model", name)]
    settings = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "nvembed_jax", "evaluate", "--tasks", *folders, *models]
    command += ["--baseline", "bm25", "--baseline", "hybrid", *settings, "-o", "scores.json"]
    subprocess.run(command, check=True, cwd=args.work)
    shutil.copy(args.work / "scores.json", out)


if __name__ == "__main__":
    main()
