from __future__ import annotations

from pathlib import Path

import pytest

from nvembed_jax.checkpoint.atomic import atomic_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "deep" / "x") as out:
        (out / "a").write_text("1")
        assert not (tmp_path / "deep" / "x").exists()
    assert names(tmp_path / "deep") == ["x"]
    assert (tmp_path / "deep" / "x" / "a").read_text() == "1"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_folder_is_gone_after_an_error_in_the_block(tmp_path, error):
    def fail() -> None:
        with atomic_folder(tmp_path / "x") as out:
            (out / "a").write_text("1")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_leftover_of_a_dead_writer_is_removed_and_a_living_one_is_not(tmp_path):
    dead = tmp_path / ".x.partial-0123456789ab"
    dead.mkdir()
    (dead / "a").write_text("1")
    (tmp_path / ".y.partial-0123456789ab").mkdir()  # another target's
    with atomic_folder(tmp_path / "x", overwrite=True) as living:
        assert not dead.exists()
        with atomic_folder(tmp_path / "x") as other:
            (other / "b").write_text("2")
        assert living.exists()
        (living / "c").write_text("3")
    assert names(tmp_path) == [".y.partial-0123456789ab", "x"]
    assert names(tmp_path / "x") == ["c"]


def test_second_writer_does_not_replace_what_the_first_finished(tmp_path):
    late = atomic_folder(tmp_path / "x")
    late.__enter__()
    with atomic_folder(tmp_path / "x") as first:
        (first / "a").write_text("1")
    with pytest.raises(OSError, match="not empty"):
        late.__exit__(None, None, None)
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["a"]
