"""NV-Embed in one stage on the blend of all sets, with or without in-batch negatives (ablation).

Source: arXiv 2405.17428 (NV-Embed, v3), the table of training stages.
Known: one stage on all sets; two variants, in-batch negatives on and off.
Assumed: as many steps as both stages of nv_embed_v2.py together; learning rate 2e-5; the rest as
    there.
Hardware: 8 x H100 80 GB, 59 h; 8 x A100 80 GB, 187 h (estimates: docs/recipes.md).
Expected: MTEB-56 average 71.94 without in-batch negatives, 70.83 with them (classification 90.2
    and 86.6: texts of one class are no negatives of each other).

    nvembed train --config configs/nv_embed_single_stage.py:off,MINED --workdir run

"off" or "on" says whether there are in-batch negatives. MINED: as in nv_embed_v2.py, which must
stand beside this file.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from nvembed_jax.train.config_file import load_config

BASE = Path(__file__).with_name("nv_embed_v2.py")


def get_config(argument: str = "off") -> ConfigDict:
    """The recipe; `argument`: "on" or "off", then perhaps a comma and a folder of mined examples.

    Raises:
        ValueError: it begins otherwise.
    """
    in_batch, _, mined = argument.partition(",")
    if in_batch not in ("on", "off"):
        raise ValueError(f"expected nv_embed_single_stage.py:on or :off, got {argument!r}")
    config = load_config(f"{BASE}:{mined}" if mined else BASE)
    config.name = f"nv_embed_single_stage_{in_batch}"
    config.stages = ("stage1",)
    steps = config.stage1.steps + config.stage2.steps
    rate = config.stage1.optimizer.learning_rate
    config.stage1 = config.stage2
    del config.stage2
    config.stage1.steps, config.stage1.optimizer.learning_rate = steps, rate
    if in_batch == "on":
        config.stage1.update({"in_batch": True, "accumulate": 1, "chunk_size": 128})
        config.stage1.loss.in_batch = True
    return config
