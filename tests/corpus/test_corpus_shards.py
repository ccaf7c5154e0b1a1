"""Corpora in parts: every id once, the same bytes after an interruption, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_corpus import (
    WIDTH,
    FailingModel,
    QuickModel,
    files,
    loaded,
    make_job,
    rows,
    texts,
    vector,
    write_corpus,
)

from nvembed_jax.config import TextConfig
from nvembed_jax.corpus.progress import Progress
from nvembed_jax.corpus.shards import encode_corpus
from nvembed_jax.data.writers import read_ids
from nvembed_jax.text.tokenizer import Tokenizer

COUNT = 300  # five parts of 64 texts, the last one of 44


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl", COUNT)


@pytest.fixture
def whole(tmp_path, corpus):
    """The files of a run without interruptions."""
    encode_corpus(make_job(corpus, tmp_path / "whole"))
    return files(tmp_path / "whole")


def test_every_id_once_with_the_embedding_of_its_text(tmp_path, corpus):
    report = encode_corpus(make_job(corpus, tmp_path / "out"))
    assert report == (COUNT, 5, COUNT, True, 0, [])
    found = rows(tmp_path / "out")
    assert list(found) == [f"d{i}" for i in range(COUNT)]
    expected = np.stack([vector(text) for text in texts(COUNT)])
    np.testing.assert_array_equal(np.stack(list(found.values())), expected)


def test_the_manifest_says_what_the_parts_are(tmp_path, corpus):
    encode_corpus(make_job(corpus, tmp_path / "out", options={"task": None, "max_length": 9}))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["rows"], manifest["input"]["texts"]) == (COUNT, COUNT)
    assert manifest["embedding"] == {"width": WIDTH, "dtype": "float32"}
    assert manifest["model"] == {"name": "quick", "fingerprint": "quick"}
    assert manifest["settings"]["options"] == {"max_length": 9}
    assert [part["rows"] for part in manifest["parts"]] == [64, 64, 64, 64, 44]
    assert manifest["parts"][4]["name"] == "part-00004.parquet"
    assert manifest["parts"][4]["first"] == 256


def test_npy_parts_have_their_ids_beside_them(tmp_path, corpus):
    encode_corpus(make_job(corpus, tmp_path / "out", suffix=".npy", half=True))
    array, ids = np.load(tmp_path / "out" / "part-00004.npy"), tmp_path / "out" / "part-00004.ids"
    assert (array.dtype, array.shape) == (np.float16, (44, WIDTH))
    assert read_ids(ids) == [f"d{i}" for i in range(256, 300)]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["embedding"] == {"width": WIDTH, "dtype": "float16"}


def test_the_method_and_its_options_reach_the_model(tmp_path, corpus):
    encode_corpus(make_job(corpus, tmp_path / "out", method="encode_query"))
    np.testing.assert_array_equal(rows(tmp_path / "out")["d7"], -vector(texts(8)[7]))


class ChunkedModel(QuickModel):
    tokenizer = Tokenizer.packaged(TextConfig())


def test_chunks_say_where_they_stand(tmp_path):
    document = "one two three four five six seven eight nine ten"
    rows = [{"_id": "a", "title": "A", "text": document}, {"_id": "b", "text": ""}]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    job = make_job(tmp_path / "c.jsonl", tmp_path / "out", ChunkedModel, chunk_tokens=4, overlap=1)
    assert encode_corpus(job).complete
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert table.column_names == ["id", "chunk", "start", "end", "embedding"]
    found = table.to_pylist()
    parts = [row for row in found if row["id"] == "a"]
    assert [row["chunk"] for row in parts] == list(range(len(parts)))
    assert len(parts) > 2
    assert (parts[0]["start"], parts[-1]["end"]) == (0, len(f"A {document}"))
    for row in parts:
        text = f"A {document}"[row["start"] : row["end"]]
        np.testing.assert_array_equal(np.float32(row["embedding"]), vector(text))
    assert [row["id"] for row in found[len(parts) :]] == ["b"]  # an empty text has one chunk
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == len(found)


def test_blocks_within_a_part_are_written_one_after_the_other(tmp_path, corpus, monkeypatch, whole):
    monkeypatch.setattr("nvembed_jax.corpus.parts.PASSAGES_AT_ONCE", 10)
    encode_corpus(make_job(corpus, tmp_path / "out"))
    found = rows(tmp_path / "out")
    assert list(found) == [f"d{i}" for i in range(COUNT)]


@pytest.mark.parametrize("good", range(6))
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, corpus, whole, good):
    out = tmp_path / "out"
    if good < 5:
        with pytest.raises(RuntimeError, match="lost"):
            encode_corpus(make_job(corpus, out, loaded(FailingModel, good)))
        assert len(list(out.glob("part-*"))) == good
        assert json.loads((out / "manifest.json").read_text())["complete"] is False
    report = encode_corpus(make_job(corpus, out))
    assert report.encoded == (COUNT - 64 * good if good < 5 else COUNT)
    assert files(out) == whole
    assert encode_corpus(make_job(corpus, out)).encoded == 0
    assert files(out) == whole


def test_shards_together_make_the_same_bytes(tmp_path, corpus, whole):
    out = tmp_path / "out"
    reports = [
        encode_corpus(make_job(corpus, out, shard_index=index, num_shards=3)) for index in (2, 0, 1)
    ]
    assert [report.encoded for report in reports] == [64, 128, 108]
    assert [(report.complete, report.missing) for report in reports] == [
        (False, 4),
        (False, 2),
        (True, 0),
    ]
    assert files(out) == whole


def test_more_shards_than_parts_leave_some_without_work(tmp_path, corpus):
    report = encode_corpus(make_job(corpus, tmp_path / "out", shard_index=7, num_shards=9))
    assert (report.encoded, report.missing) == (0, 5)


def test_a_resumed_run_keeps_the_size_of_its_parts(tmp_path, corpus):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError):
        encode_corpus(make_job(corpus, out, loaded(FailingModel, 1), part_texts=100))
    assert encode_corpus(make_job(corpus, out)).parts == 3
    assert encode_corpus(make_job(corpus, out, part_texts=100)).encoded == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load": loaded(QuickModel, "other")}, r"with model quick \(quick\), not with .*other"),
        ({"options": {"truncate_dim": 4}}, r'options = \{\}, not \{"truncate_dim": 4\}'),
        ({"half": True}, "half = false, not true"),
        ({"method": "encode_query"}, 'method = "encode_document", not "encode_query"'),
        ({"part_texts": 100}, "with 64 texts a part, not 100"),
        ({"suffix": ".npy"}, 'format = "parquet", not "npy"'),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, corpus, whole, change, words):
    with pytest.raises(ValueError, match=words):
        encode_corpus(make_job(corpus, tmp_path / "whole", **change))
    assert files(tmp_path / "whole") == whole


def test_another_input_in_the_same_folder_is_refused(tmp_path, corpus, whole):
    other = write_corpus(tmp_path / "other.jsonl", COUNT + 1)
    with pytest.raises(ValueError, match=r"corpus\.jsonl of 300 texts, not other\.jsonl of 301"):
        encode_corpus(make_job(other, tmp_path / "whole"))
    assert files(tmp_path / "whole") == whole


def test_the_same_texts_under_another_name_go_on(tmp_path, corpus, whole):
    moved = corpus.rename(tmp_path / "moved.jsonl")
    assert encode_corpus(make_job(moved, tmp_path / "whole")).encoded == 0


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path, corpus):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds thesis\.txt but no manifest\.json"):
        encode_corpus(make_job(corpus, tmp_path / "out"))
    (tmp_path / "out" / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is no manifest of an encoded corpus"):
        encode_corpus(make_job(corpus, tmp_path / "out"))
    with pytest.raises(ValueError, match="is a file"):
        encode_corpus(make_job(corpus, tmp_path / "out" / "thesis.txt"))


def test_output_inside_the_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lies in the input"):
        encode_corpus(make_job(tmp_path, tmp_path / "out"))


def test_a_missing_parent_is_named(tmp_path, corpus):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        encode_corpus(make_job(corpus, tmp_path / "no" / "out"))


def test_a_bad_line_stops_before_anything_is_made(tmp_path, corpus):
    corpus.write_text(corpus.read_text() + "{broken\n")
    with pytest.raises(ValueError, match=r"corpus\.jsonl:301: not JSON"):
        encode_corpus(make_job(corpus, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_texts_that_change_while_they_are_encoded_leave_no_part(tmp_path, corpus):
    def load():
        lines = corpus.read_text().splitlines()
        lines[70] = lines[70].replace("number", "NUMBER")
        corpus.write_text("\n".join(lines))
        return QuickModel()

    with pytest.raises(ValueError, match="texts 64 to 127 changed"):
        encode_corpus(make_job(corpus, tmp_path / "out", load))
    assert sorted(files(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]


def test_leftovers_of_killed_runs_are_removed(tmp_path, corpus, whole):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".part-00001.parquet.abc.part").write_text("half a par")
    (out / "part-00001.ids").write_text("d0\n")
    (out / "manifest.json").write_text((tmp_path / "whole" / "manifest.json").read_text())
    encode_corpus(make_job(corpus, out))
    assert files(out) == whole


def test_leftovers_stay_while_others_work_in_the_folder(tmp_path, corpus):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".part-00001.parquet.abc.part").write_text("half a par")
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    encode_corpus(make_job(corpus, out))
    assert (out / ".part-00001.parquet.abc.part").exists()
    os.close(handle)
    encode_corpus(make_job(corpus, out))
    assert not (out / ".part-00001.parquet.abc.part").exists()


def test_a_shard_leaves_the_temporary_files_of_others(tmp_path, corpus):
    out = tmp_path / "out"
    out.mkdir()
    for number in (1, 2):
        (out / f".part-0000{number}.parquet.abc.part").write_text("half a par")
    encode_corpus(make_job(corpus, out, shard_index=0, num_shards=2))
    assert [path.name for path in out.glob(".*")] == [".part-00001.parquet.abc.part"]


def test_a_damaged_part_is_named_when_the_corpus_is_finished(tmp_path, corpus):
    out = tmp_path / "out"
    encode_corpus(make_job(corpus, out, shard_index=0, num_shards=2))
    part = out / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"part-00002\.parquet: cannot be read .*delete it"):
        encode_corpus(make_job(corpus, out, shard_index=1, num_shards=2))
    part.write_bytes((out / "part-00004.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"part-00002\.parquet: 44 rows for 64 texts"):
        encode_corpus(make_job(corpus, out))
    part.unlink()
    assert encode_corpus(make_job(corpus, out)).encoded == 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "embed"}, "encode calls"),
        ({"suffix": ".jsonl"}, r"parts are \.parquet or \.npy"),
        ({"suffix": ".npy", "chunk_tokens": 4}, r"chunks need \.parquet"),
        ({"overlap": 1}, "0 <= overlap < chunk_tokens"),
        ({"shard_index": 2, "num_shards": 2}, "0 <= shard_index < num_shards"),
        ({"part_texts": 0}, "at least one text"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make_job(tmp_path, tmp_path / "out", **options)


def test_chunks_longer_than_the_model_reads_are_refused(tmp_path, corpus):
    with pytest.raises(ValueError, match="chunks of 65 tokens are longer than the 64"):
        encode_corpus(make_job(corpus, tmp_path / "out", chunk_tokens=65))


def test_unknown_backends_are_refused(tmp_path, corpus):
    with pytest.raises(ValueError, match="one of local, ray; got 'dask'"):
        encode_corpus(make_job(corpus, tmp_path / "out"), backend="dask")


def test_progress_lines_tell_the_time_left():
    now, said = [0.0], []
    with Progress(10_000, 1000, said.append, lambda: now[0]) as progress:
        now[0] = 30.0
        progress.add(1000)
        assert said == []
        now[0] = 61.0
        progress.add(2050)
        assert said == ["4,050 of 10,000 texts, 50 a second, 1 min 59 s left"]
        progress.add(-2050)
        assert (progress.made, progress.done) == (1000, 2000)
    assert Progress(5, 0, said.append, lambda: 0.0).line() == "0 of 5 texts"
