"""What comes out of files, standard input and folders, and what bad ones are told."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nvembed_jax.data import Record, read_records
from nvembed_jax.data.corpus import Corpus


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(source, **kw) -> list[str]:
    return [record.text for record in read_records(source, **kw)]


def failure(source, **kw) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        list(read_records(source, **kw))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_txt_keeps_blank_lines_between_texts_and_drops_those_at_the_end(tmp_path):
    path = write(tmp_path / "a.txt", "one\n\n  two \r\nthree\n\n \n")
    assert list(read_records(path)) == [
        Record("0", "one"), Record("1", ""), Record("2", "  two "), Record("3", "three"),
    ]  # fmt: skip


def test_txt_ends_lines_at_line_feeds_only(tmp_path):
    path = write(tmp_path / "a.txt", "a\u2028b\x0bc\x85d\ne")
    assert texts(path) == ["a\u2028b\x0bc\x85d", "e"]


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    assert texts(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo")) == [
        "one",
        "\ufefftwo",
    ]


def test_jsonl_reads_ids_titles_and_gzip(tmp_path):
    rows = [{"_id": "x", "title": "T", "text": "body"}, {"id": 7, "text": "b"}, {"text": "c"}]
    content = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    expected = [Record("x", "body", "T"), Record("7", "b"), Record("2", "c")]
    for path in (
        write(tmp_path / "a.jsonl", content),
        write(tmp_path / "a.JSONL.gz", gzip.compress(content.encode())),
    ):
        records = list(read_records(path))
        assert records == expected
        assert [record.full_text for record in records] == ["T body", "b", "c"]


def test_other_field_comes_without_the_title(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"title": "T", "text": "x", "abstract": "y"}))
    assert [r.full_text for r in read_records(path, field="abstract")] == ["y"]
    assert [r.full_text for r in read_records(path, field="title")] == ["T"]


def test_csv_reads_quoted_line_breaks_and_long_cells(tmp_path):
    long = "x" * 200_000
    path = write(tmp_path / "a.csv", f'id,text,more\n7,"a ""b"",\nc",1\n8,{long},2\n')
    assert list(read_records(path)) == [Record("7", 'a "b",\nc'), Record("8", long)]
    assert texts(path, field="more") == ["1", "2"]


def test_parquet_reads_the_columns_asked_for(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"_id": [3, 4], "text": ["a", "b"], "title": ["T", None], "n": ["x", "y"]}), path
    )
    assert list(read_records(path)) == [Record("3", "a", "T"), Record("4", "b")]
    assert list(read_records(path, field="n")) == [Record("3", "x"), Record("4", "y")]


def test_reading_is_lazy(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\nnot json\n')
    records = read_records(path)
    assert next(records).text == "a"
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not JSON"):
        next(records)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"nvembed_jax\[parquet\]"):
        next(read_records(write(tmp_path / "a.parquet", "")))


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": 3}', [":2:", "'text' holds int", "expected a string"]),
        ("a.jsonl", '{"text": null}', [":1:", "null"]),
        ("a.jsonl", '{"body": "a"}', [":1:", "no field 'text'", "'body'", "--field"]),
        ("a.jsonl", '["a"]', [":1:", "a JSON list", '"text"']),
        ("a.jsonl", '{"text": "a"', [":1:", "not JSON", "character 13"]),
        ("a.jsonl", '{"text": "a", "_id": [1]}', [":1:", "the id holds list"]),
        ("a.jsonl", '{"text": "a", "_id": true}', [":1:", "the id holds bool"]),
        ("a.jsonl", '{"text": "a", "title": 1}', [":1:", "'title' holds int"]),
        ("a.jsonl", '{"text": "a\\ud800"}', [":1:", "lone surrogate", "character 1"]),
        (
            "a.jsonl",
            '{"_id": 1, "text": "a"}\n\n{"_id": "1", "text": "b"}',
            [":3:", "'1' stands twice"],
        ),
        ("a.csv", "body,n\na,1\n", [":1:", "no field 'text'", "'body', 'n'"]),
        ("a.csv", "text,n\na,1\nb\n", [":3:", "1 cells; expected 2"]),
        ("a.csv", 'text\n"a\nb\n', [":3:", "not CSV"]),
        ("a.txt", b"good\nb\xffd\n", [":2:", "not UTF-8", "0xff at byte 2"]),
        ("a.txt", "\n \n", ["no texts"]),
        ("a.txt", "", ["no texts"]),
        ("a.csv", "", ["no texts"]),
        ("a.csv", "text\n", ["no texts"]),
        ("a.parquet", "nonsense", ["not a parquet file"]),
        ("a.docx", "x", ["cannot tell the format", ".jsonl", "folder"]),
        ("noname", "x", ["cannot tell the format"]),
        ("a.parquet.gz", "x", ["cannot tell the format"]),
        ("a.txt.gz", gzip.compress(b"a long enough text")[:-9], ["not a complete gzip file"]),
        ("a.txt.gz", "plain", ["not a complete gzip file"]),
    ],
)
def test_bad_input_is_named_with_its_place(tmp_path, name, content, parts):
    message = failure(write(tmp_path / name, content))
    assert message.startswith(str(tmp_path / name))
    for part in parts:
        assert part in message


def test_missing_file_is_named(tmp_path):
    assert "no such file" in failure(tmp_path / "none.txt")


def test_field_of_a_txt_file_is_refused(tmp_path):
    assert "no fields" in failure(write(tmp_path / "a.txt", "x"), field="body")


def test_format_overrides_the_name(tmp_path):
    path = write(tmp_path / "a.data", '{"text": "x"}\n')
    assert texts(path, format="jsonl") == ["x"]
    assert texts(path, format="txt") == ['{"text": "x"}']
    assert "must be one of" in failure(path, format="xml")


@pytest.mark.parametrize(
    ("content", "format", "expected"),
    [
        ("one\ntwo\n", None, ["one", "two"]),
        ('{"text": "one"}\n{"text": "two"}\n', None, ["one", "two"]),
        ('{"text": "one"}\n', "txt", ['{"text": "one"}']),
        ("text\none\n", "csv", ["one"]),
        ("{curly}\n", None, ["{curly}"]),
    ],
)
def test_standard_input_is_jsonl_when_its_first_line_is_an_object(
    monkeypatch, content, format, expected
):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert texts("-", format=format) == expected


def test_standard_input_is_named_in_errors(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))
    assert failure("-").startswith("<stdin>:2: not UTF-8")


@pytest.fixture
def folder(tmp_path):
    files = {
        "b.md": "# Title\ntext",
        "a/z.txt": "zed",
        "a/code.py": "x = 1",
        "a/page.html": "<head>no</head><p>one <b>two</b></p><script>no</script><p>a &amp; b",
        ".hidden": "no",
        ".git/config.txt": "no",
        "empty.txt": " \n",
        "rows.jsonl": "{}",
    }
    for name, content in files.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    write(tmp_path / "docs" / "image.png", b"\x89PNG\0\0")
    write(tmp_path / "docs" / "latin.txt", b"caf\xe9")
    (tmp_path / "docs" / "broken").symlink_to("nowhere")
    return tmp_path / "docs"


def test_folder_gives_its_text_files_sorted_by_path(folder):
    skipped = []
    records = list(read_records(folder, on_skip=lambda path, why: skipped.append((path, why))))
    assert [record.id for record in records] == ["a/code.py", "a/page.html", "a/z.txt", "b.md"]
    assert records[1].text == "one two\na & b"
    assert records[3].text == "# Title\ntext"
    assert skipped == [
        ("image.png", "binary"),
        ("latin.txt", "not UTF-8 at byte 3"),
        ("rows.jsonl", "a data file"),
    ]


def test_folder_without_texts_is_an_error(tmp_path):
    write(tmp_path / ".hidden", "x")
    assert "no texts" in failure(tmp_path)


def test_corpus_is_read_again_from_the_start_and_its_digest_follows_content(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"_id": 1, "text": "a"}\n{"_id": 2, "text": "b"}\n')
    with Corpus(path) as corpus:
        facts = corpus.scan()
        assert facts.count == len(list(corpus.records())) == 2
        write(path, '{"text": "a", "id": "1"}\n\n{"text": "b", "_id": 2}')
        assert corpus.scan() == facts
        write(path, '{"_id": 1, "text": "a"}\n{"_id": 2, "text": "c"}\n')
        assert corpus.scan().digest != facts.digest


def test_corpus_from_standard_input_can_be_read_twice_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO('{"title": "T", "text": "é"}\n'.encode()))
    )
    with Corpus("-") as corpus:
        assert list(corpus.records()) == list(corpus.records()) == [Record("0", "é", "T")]
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(ValueError, match="not UTF-8"), Corpus("-"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_large_file_is_never_held_in_memory(tmp_path):
    """A child process reads 200 MB of text with room for 60 MB on top of Python's own."""
    line = "x" * 999_000 + "\n"
    with (tmp_path / "a.txt").open("w") as file:
        for _ in range(200):
            file.write(line)
    script = (
        "import sys, resource\n"
        "from nvembed_jax.data.records import read_records\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20),) * 2)\n"
        "print(sum(1 for _ in read_records(sys.argv[1])))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.txt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.stdout == "200\n", out.stderr
