"""The embedded store: codes with rescoring, several processes, deleted rows, broken files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_stores import schema, unit_vectors

from nvembed_jax.search.stores import Condition, make_store, open_store
from nvembed_jax.search.stores.faiss_store import OVERSAMPLING

COUNT, WIDTH, K = 2000, 64, 10


def clustered(count: int, seed: int) -> np.ndarray:
    """Unit vectors around few centres, so that many are near each other."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, WIDTH))
    vectors = centres[rng.integers(0, 40, count)] + 0.7 * rng.normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(store, vectors: np.ndarray, queries: np.ndarray) -> float:
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    found = store.search(queries, K)
    same = [len({int(m.id) for m in f} & set(e)) for f, e in zip(found, exact, strict=True)]
    return sum(same) / (K * len(queries))


@pytest.mark.parametrize(
    ("embedding_type", "least", "alone"), [("int8", 0.999, 0.9), ("binary", 0.99, 0.3)]
)
def test_codes_with_rescoring_find_what_floats_find(tmp_path, embedding_type, least, alone):
    vectors, queries = clustered(COUNT, 1), clustered(50, 2)
    names = [str(i) for i in range(COUNT)]
    wanted = schema(dim=WIDTH, fields={"year": "int"}, embedding_type=embedding_type)
    with make_store(tmp_path / "store", wanted) as store:
        store.add(names, vectors, payloads=[{"year": i % 2} for i in range(COUNT)])
        assert store.oversampling == OVERSAMPLING[embedding_type]
        assert recall(store, vectors, queries) >= least
        store.oversampling = 1
        assert alone <= recall(store, vectors, queries) < 1  # so the rescoring is what does it
    with open_store(tmp_path / "store") as store:
        found = store.search(queries, K)
        for query, matches in zip(queries, found, strict=True):
            scores = [match.score for match in matches]
            expected = [vectors[int(match.id)] @ query for match in matches]
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            assert scores == sorted(scores, reverse=True)
        odd = store.search(queries, K, [Condition("year", "=", 1)])
        assert all(int(match.id) % 2 for matches in odd for match in matches)
        assert {len(matches) for matches in odd} == {K}


def test_dimensions_that_fill_no_byte_have_binary_codes(tmp_path):
    vectors = unit_vectors(30, dim=13)
    wanted = schema(dim=13, fields={}, embedding_type="binary")
    with make_store(tmp_path / "store", wanted) as store:
        store.add([str(i) for i in range(30)], vectors)
        assert [found[0].id for found in store.search(vectors, 1)] == [str(i) for i in range(30)]


def test_several_may_write_at_once(tmp_path):
    vectors = unit_vectors(50)
    make_store(tmp_path / "s", schema()).close()

    def write(part: int) -> None:
        with open_store(tmp_path / "s") as store:
            for start in range(0, 50, 5):
                names = [str(i) for i in range(start, start + 5)]
                store.add(names, vectors[start : start + 5], texts=[f"by {part}"] * 5)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    with open_store(tmp_path / "s") as store:
        assert store.count() == 50
        assert [f[0].id for f in store.search(vectors, 1)] == [str(i) for i in range(50)]


def test_rows_that_are_gone_leave_memory(tmp_path):
    vectors = unit_vectors(100)
    names = [str(i) for i in range(100)]
    with make_store(tmp_path / "s", schema()) as store:
        for _ in range(5):
            store.add(names, vectors)
            assert [f[0].id for f in store.search(vectors[:7], 1)] == names[:7]
        assert len(store._index.rows) <= 200
        store.delete(names[:60])
        assert len(store.search(vectors[:1], 100)[0]) == 40
        assert len(store._index.rows) == 40


def test_files_that_are_no_store_are_refused(tmp_path):
    folder = tmp_path / "s"
    make_store(folder, schema()).close()
    (folder / "points.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ValueError, match="is no store of ours"):
        open_store(folder)
