"""Payload fields of a corpus: their types from its rows, and their values."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nvembed_jax.search.stores.payloads import field_types, parse_fields, payload, payload_rows

ROWS = [
    {"text": "a", "lang": "en", "year": 2020, "price": 1, "new": True},
    {"text": "b", "lang": None, "year": 2021, "price": 2.5},
]


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(map(json.dumps, ROWS)) + "\n")
    return path


def read(path, wanted: str):
    fields = field_types(payload_rows(path), parse_fields(wanted))
    return fields, [payload(row, fields) for row in payload_rows(path)]


def test_types_are_what_the_rows_hold(jsonl):
    types, payloads = read(jsonl, "lang,year,price,new")
    assert types == {"lang": "str", "year": "int", "price": "float", "new": "bool"}
    assert payloads == [
        {"lang": "en", "year": 2020, "price": 1.0, "new": True},
        {"lang": None, "year": 2021, "price": 2.5, "new": None},
    ]
    assert type(payloads[0]["price"]) is float


def test_given_types_hold(jsonl):
    assert read(jsonl, "year:float")[1] == [{"year": 2020.0}, {"year": 2021.0}]
    with pytest.raises(ValueError, match=r"a\.jsonl:3: field 'price': expected int; got 2\.5"):
        read(jsonl, "price:int")


def test_csv_gives_strings_unless_told(tmp_path):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write('text,year,new\n"two\nlines",2020,true\n\nb,,false\n')
    assert read(path, "year")[1] == [{"year": "2020"}, {"year": ""}]
    assert read(path, "year:int,new:bool")[1] == [
        {"year": 2020, "new": True}, {"year": None, "new": False},
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.csv\.gz:3: field 'text': expected int; got 'two"):
        read(path, "text:int")


def test_parquet_columns_are_read(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "year": [1, None]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "year") == ({"year": "int"}, [{"year": 1}, {"year": None}])


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        ([{"yaer": 1}], "year", "no row has a field 'year'.*did you mean 'yaer'"),
        ([{"x": 1}, {"x": "1"}], "x", r"a\.jsonl:2: field 'x': holds str, in rows before int"),
        ([{"x": True}, {"x": 1}], "x", "holds int, in rows before bool"),
        ([{"x": [1]}], "x", r"a\.jsonl:1: field 'x': holds list"),
        ([{"x": 1}], "x:str", "expected str; got 1"),
    ],
)
def test_fields_that_cannot_be_are_refused_with_their_place(tmp_path, rows, wanted, message):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.jsonl", wanted)


@pytest.mark.parametrize("text", ["", "a,,b", "a,a", "a:text", ":int"])
def test_lists_of_fields_that_are_none(text):
    with pytest.raises(ValueError, match="expected NAME or NAME:TYPE"):
        parse_fields(text)


def test_sources_without_fields_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    for source, message in ((tmp_path, "has no payload fields"), ("-", "has no payload fields"),
                            (tmp_path / "a.txt", "lines of text have no payload")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            list(payload_rows(source))
