"""`python -m nvembed_jax.train`: the same as `nvembed train`."""

from __future__ import annotations

from nvembed_jax.train.command import main

if __name__ == "__main__":
    raise SystemExit(main())
