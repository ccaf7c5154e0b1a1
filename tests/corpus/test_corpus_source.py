"""What a corpus is read from, and the digests that its parts are known by."""

from __future__ import annotations

import gzip
import json

import pytest
from made_corpus import write_corpus

from nvembed_jax.corpus.manifest import default_part_texts, make_plan
from nvembed_jax.corpus.source import BlockDigests, Source, scan
from nvembed_jax.data.records import Record


def line(id_: str, text: str = "some text") -> str:
    return json.dumps({"_id": id_, "text": text}) + "\n"


def test_a_folder_of_data_files_is_read_in_the_order_of_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.jsonl").write_text(line("2"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line("1").encode()))
    (tmp_path / "sub" / "a.jsonl").write_text(line("3"))
    (tmp_path / ".hidden.jsonl").write_text(line("4"))
    (tmp_path / "README.md").write_text("what this is")
    source = Source(path=str(tmp_path))
    assert [record.id for record in source.records()] == ["1", "2", "3"]
    facts = scan(source, 2)
    assert (facts.texts, len(facts.digests)) == (3, 2)
    assert facts.skipped == ["README.md (not .jsonl or .parquet, as others are)"]


def test_a_folder_of_texts_is_read_as_texts(tmp_path):
    (tmp_path / "a.md").write_text("hello")
    (tmp_path / "b.json").write_text("{}")
    facts = scan(Source(path=str(tmp_path)), 64)
    assert (facts.texts, facts.skipped) == (1, ["b.json (a data file)"])


def test_an_id_in_two_files_is_refused_by_both_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(line(name) + line("same"))
    with pytest.raises(ValueError, match=r"b\.jsonl: the id 'same' stands in .*a\.jsonl too"):
        scan(Source(path=str(tmp_path)), 64)


def test_an_id_that_stands_twice_in_a_file_is_named_by_its_line(tmp_path):
    (tmp_path / "c.jsonl").write_text(line("a") + line("b") + line("a"))
    with pytest.raises(ValueError, match=r"c\.jsonl:3: the id 'a' stands twice"):
        scan(Source(path=str(tmp_path / "c.jsonl")), 64)


def test_the_field_reaches_every_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": name, "body": "x"}) + "\n")
    records = list(Source(path=str(tmp_path), field="body").records())
    assert records == [Record("a", "x"), Record("b", "x")]


def test_standard_input_is_refused():
    with pytest.raises(ValueError, match="write it to a file first"):
        Source(path="-")


def test_digests_follow_the_records_of_their_block_only():
    def digests(*texts: str) -> list[bytes]:
        blocks = BlockDigests(2)
        for i, text in enumerate(texts):
            blocks.add(Record(str(i), text))
        return blocks.digests()

    before, after = digests("a", "b", "c"), digests("a", "b", "d")
    assert len(before) == 2
    assert before[0] == after[0] == digests("a", "b")[0]
    assert before[1] != after[1]
    assert digests() == []


@pytest.mark.parametrize(
    ("count", "each"),
    [(1, 64), (4096, 64), (4097, 128), (100_000, 1600), (10**6, 15680), (10**9, 16384)],
)
def test_part_size_by_default(count, each):
    assert default_part_texts(count) == each


@pytest.mark.parametrize(("count", "each"), [(1, None), (64, None), (130, None), (10, 3), (9, 3)])
def test_parts_hold_every_text_once(tmp_path, count, each):
    facts = scan(Source(path=str(write_corpus(tmp_path / "c.jsonl", count))), each or 64)
    plan = make_plan("c.jsonl", facts, each or 64, each, ".npy")
    held = [n for part in plan.parts for n in range(part.first, part.first + part.texts)]
    assert held == list(range(count))
    assert all(part.texts for part in plan.parts)
    assert len({part.digest for part in plan.parts}) == len(plan.parts)


def test_parts_keep_their_digest_when_texts_come_after_them(tmp_path):
    plans = []
    for count in (128, 200):
        facts = scan(Source(path=str(write_corpus(tmp_path / "c.jsonl", count))), 64)
        plans.append(make_plan("c.jsonl", facts, 64, 64, ".npy"))
    assert plans[0].parts == plans[1].parts[:2]
    assert plans[0].digest != plans[1].digest
