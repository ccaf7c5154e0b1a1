"""`python -m nvembed_jax.train`: the same as `nvembed train`."""

from __future__ import annotations

from nvembed_jax.train.command import main
from nvembed_jax.train.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    raise SystemExit(main())
