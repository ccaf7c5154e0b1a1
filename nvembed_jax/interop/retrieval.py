"""What the classes for LangChain and LlamaIndex share: a model that is loaded by its name and
embeds either side, and an index folder or a store that is searched with it.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from nvembed_jax.codes import unit
from nvembed_jax.interop.remote import open_model
from nvembed_jax.search.index import META, SearchIndex

ENCODING = ("batch_tokens", "max_length", "normalize", "show_progress_bar", "truncate_dim")


def missing(framework: str, package: str) -> ImportError:
    """The error where a framework is not installed."""
    return ImportError(
        f'the classes for {framework} need {package}: pip install "nvembed_jax[rag]"'
    )


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises a ValueError with the nearest name for a name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ValueError(f"unknown {what} {name!r}; {mend}")


class NamedModel:
    """A model, loaded when it is first used. Copies share it; a pickle holds its name only.

    One text or batch runs at a time, whichever thread asks.

    Args:
        name: a folder, a name, or a remote model (`open_model`); None: the bundled one.
        loading: options of `open_model`. task: of the queries.
        encoding: options of the encoding methods, of `ENCODING`.
        fingerprint: what the model must have; "": any.
        model: the model itself, where it is loaded already; it cannot be pickled then.

    Raises:
        ValueError: unknown options, or a model of another fingerprint (also when it is loaded).
    """

    def __init__(
        self,
        name: str | None,
        *,
        loading: Mapping[str, Any] | None = None,
        task: str | None = None,
        encoding: Mapping[str, Any] | None = None,
        fingerprint: str = "",
        model: Any = None,
    ) -> None:
        check_names(encoding or {}, ENCODING, "option of the encoding")
        if model is not None and (name is not None or loading):
            raise ValueError("give the model by its name or the loaded model, not both")
        self.name, self.loading, self.task = name, dict(loading or {}), task
        self.encoding = {"show_progress_bar": False, **(encoding or {})}
        self._wanted, self._given = fingerprint, model is not None
        self._model = None if model is None else self._checked(model)
        self._lock = threading.RLock()

    @property
    def model(self) -> Any:
        """The model itself: an `Embedder` or a `RemoteEmbedder`."""
        with self._lock:
            if self._model is None:
                self._model = self._checked(open_model(self.name, **self.loading))
            return self._model

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.model.fingerprint

    def embed_queries(
        self, texts: Sequence[str], task: str | None = None
    ) -> Float[np.ndarray, "Q D"]:
        """Embeddings of queries, with `task`, or the one that was given at first."""
        task = self.task if task is None else task
        with self._lock:
            return _rows(self.model.encode_query(_listed(texts), task=task, **self.encoding))

    def embed_passages(self, texts: Sequence[str]) -> Float[np.ndarray, "P D"]:
        """Embeddings of passages."""
        with self._lock:
            return _rows(self.model.encode_document(_listed(texts), **self.encoding))

    def _checked(self, model: Any) -> Any:
        if self._wanted and model.fingerprint != self._wanted:
            raise ValueError(
                f"expected the model {self._wanted}; {self.name or model.config.name} is now "
                f"{model.fingerprint}: its embeddings do not go with those made before"
            )
        return model

    def __getstate__(self) -> dict[str, Any]:
        if self._given:
            raise TypeError(
                "made from a loaded model, which cannot be pickled; give the model by its name"
            )
        wanted = self._wanted or ("" if self._model is None else self._model.fingerprint)
        return {**vars(self), "_model": None, "_lock": None, "_wanted": wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> NamedModel:
        return self


class Found(NamedTuple):
    """One result: a passage, the text that it is of (`source`), and what a store keeps with it."""

    rank: int
    score: float
    id: str
    source: str
    text: str
    payload: dict[str, Any]


class PassageSearch:
    """An index folder or a store, and the model that it was made with.

    A pickle holds the place, not the embeddings.

    Args:
        where: an index folder (`nvembed search --index`), or a store: a folder, or the URL of a
            collection (`open_store`). kind: of a store, where the place does not say.
        hybrid: join the embeddings' scores with BM25's (index folders only).
        min_score: a cosine below which nothing is found.

    Raises:
        FileNotFoundError: there is nothing. ValueError: neither index nor store, or made with
            another model; `hybrid` of a store, or with `min_score` (its scores are no cosines).
    """

    def __init__(
        self,
        where: str | Path,
        model: NamedModel,
        *,
        kind: str | None = None,
        hybrid: bool = False,
        min_score: float | None = None,
    ) -> None:
        if hybrid and min_score is not None:
            raise ValueError("min_score is a cosine, and the scores of a hybrid search are none")
        self._where, self._kind, self._model = str(where), kind, model
        self._hybrid, self._min_score = hybrid, min_score
        self._lock = threading.Lock()
        self._place = self._opened()

    def search(
        self,
        query: str,
        k: int,
        *,
        task: str | None = None,
        filters: Sequence[str] = (),
        embedding: Sequence[float] | None = None,
    ) -> list[Found]:
        """The k best texts of an index, or passages of a store; fewer where there are not as many.

        Args:
            task: of the query; None: the model's.
            filters: conditions on a store's payload, as `parse_condition` reads them.
            embedding: of the query, where it is known already; of any length.

        Raises:
            ValueError: k below 1, a blank query without an embedding, or filters that the store
                does not take or an index does not have.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        if embedding is None and not query.strip():
            raise ValueError("expected a text to search for; got an empty one")
        if embedding is None:
            queries = self._model.embed_queries([query], task)
        else:
            queries = unit(np.array([embedding], np.float32))
        least = -np.inf if self._min_score is None else self._min_score
        if isinstance(self._place, SearchIndex):
            found = self._from_index(self._place, query, queries, k, filters)
        else:
            found = self._from_store(self._place, queries, k, filters)
        return [one for one in found if one.score >= least]

    def _from_index(
        self, index: SearchIndex, query: str, queries: Any, k: int, filters: Sequence[str]
    ) -> list[Found]:
        if filters:
            raise ValueError(f"{self._where}: is an index folder, whose texts have no payload to "
                             f"filter by; make a store of them")  # fmt: skip
        count = min(k, index.num_documents)
        if self._hybrid:
            with self._lock:  # the first one makes the BM25 index
                hits = index.search_hybrid(queries, [query], count)[0]
        else:
            hits = index.search(queries, count)[0]
        return [Found(hit.rank, hit.score, hit.id, hit.id, hit.text, {}) for hit in hits]

    def _from_store(self, store: Any, queries: Any, k: int, filters: Sequence[str]) -> list[Found]:
        from nvembed_jax.search.stores import parse_condition

        conditions = [parse_condition(text, store.schema.all_fields) for text in filters]
        found = []
        for rank, match in enumerate(store.search(queries, k, conditions)[0], start=1):
            payload = {name: match.payload[name] for name in store.schema.fields}
            source, text = match.payload["document"], match.payload["text"] or ""
            found.append(Found(rank, match.score, match.id, source, text, payload))
        return found

    def _opened(self) -> Any:
        folder = Path(self._where)
        if self._kind is None and (folder / META).exists():
            index = SearchIndex(folder)
            check_made_with(index, self._model.fingerprint)
            return index
        if self._hybrid:
            raise ValueError(f"{self._where}: hybrid search needs an index folder, not a store")
        from nvembed_jax.search.stores import open_store

        name = self._model.name or self._model.model.config.name
        return open_store(
            self._where, self._kind, fingerprint=self._model.fingerprint, model_name=name
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_place": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._place = threading.Lock(), self._opened()


def check_made_with(index: SearchIndex, fingerprint: str) -> None:
    """Raises a ValueError where an index was made with another model."""
    made = index.meta["model"]
    if made["fingerprint"] != fingerprint:
        raise ValueError(
            f"{index.folder}: was made with model {made['name']} ({made['fingerprint']}), not with "
            f"{fingerprint}; search with the former, or make the index anew"
        )


def _listed(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError("expected a list of texts; got one string")
    return list(texts)


def _rows(embeddings: Any) -> Float[np.ndarray, "N D"]:
    return np.asarray(embeddings, np.float32)
