"""Filters as they are written: values by the type of the field, and what is no filter."""

from __future__ import annotations

import pytest

from nvembed_jax.search.stores import Condition, parse_condition

FIELDS = {"lang": "str", "year": "int", "price": "float", "new": "bool"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lang=en", ("lang", "=", "en")),
        (" lang = a b ", ("lang", "=", "a b")),
        ('lang="=a, \\"b\\" "', ("lang", "=", '=a, "b" ')),
        ("lang=a=b", ("lang", "=", "a=b")),
        ("lang<m", ("lang", "<", "m")),
        ("lang in en, de", ("lang", "in", ("en", "de"))),
        ('lang in ["a,b", "c"]', ("lang", "in", ("a,b", "c"))),
        ("year>=2020", ("year", ">=", 2020)),
        ("year<-3", ("year", "<", -3)),
        ("year in 1,2", ("year", "in", (1, 2))),
        ("year in [1, 2]", ("year", "in", (1, 2))),
        ("price<=2", ("price", "<=", 2.0)),
        ("new=True", ("new", "=", True)),
        ("new in [false]", ("new", "in", (False,))),
    ],
)
def test_written_conditions(text, expected):
    condition = parse_condition(text, FIELDS)
    assert condition == Condition(*expected)
    value = condition.value
    assert type(value) is type(expected[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lang", "expected FIELD=VALUE"),
        ("lang=", "expected FIELD=VALUE"),
        ("lang==en", "expected FIELD=VALUE"),
        ("lang!=en", "expected FIELD=VALUE"),
        ("2lang=en", "expected FIELD=VALUE"),
        ("yaer=3", "no such field; did you mean 'year'"),
        ("year=new", "expected int; got 'new'"),
        ("year=1.5", "expected int"),
        ("price=nan", "finite"),
        ("new=yes", "expected bool; got 'yes'"),
        ("new<true", "no order"),
        ("lang in [", "not JSON"),
        ('lang="open', "expected str"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_condition(text, FIELDS)
