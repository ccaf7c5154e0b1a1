"""`python -m nvembed_jax` is `nvembed`."""

from nvembed_jax.cli.main import main

if __name__ == "__main__":
    main()
