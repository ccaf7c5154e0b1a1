"""Whatever is sent, the answer has a documented status, and the next request is answered."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_app import error_of

PATHS = ("/v1/embeddings", "/tokenize", "/similarity")
TEXTS = st.text(max_size=30)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
SOME = st.sampled_from
FIELDS = {
    "model": SOME(["nv", "nv-query", "acme/sym", "sym-passage", "x", ""]),
    "input": TEXTS | st.lists(TEXTS, max_size=5),
    "queries": TEXTS | st.lists(TEXTS, max_size=3),
    "passages": TEXTS | st.lists(TEXTS, max_size=3),
    "input_type": SOME(["query", "passage", None]),
    "encoding_format": SOME(["float", "base64", None]),
    "dimensions": st.integers(-1, 70) | st.none(),
    "truncate": SOME(["NONE", "START", "END", None]),
    "embedding_type": SOME(["float", "int8", "uint8", "binary", "ubinary"]),
    "task": TEXTS | st.none(),
}
REQUIRED = ("model", "input", "queries", "passages")
GOOD = st.fixed_dictionaries(
    {name: FIELDS[name] for name in REQUIRED},
    optional={name: values for name, values in FIELDS.items() if name not in REQUIRED},
)
MIXED = st.fixed_dictionaries(
    {"model": FIELDS["model"]},
    optional={name: values | ANYTHING for name, values in FIELDS.items() if name != "model"},
)
BODIES = (GOOD | MIXED | ANYTHING).map(lambda value: json.dumps(value).encode())
BROKEN = st.binary(max_size=60) | BODIES.map(lambda body: body[: len(body) // 2])


@pytest.mark.parametrize("path", PATHS)
def test_no_body_breaks_the_server(served, path):
    seen = set()

    @settings(
        max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(BODIES | BROKEN)
    def check(content):
        response = served.post(path, content=content)
        seen.add(response.status_code)
        if response.status_code != 200:
            assert response.status_code in (400, 404, 422), response.text
            error_of(response, response.status_code)

    check()
    assert {200, 400, 404, 422} <= seen
    assert served.embed("nv", "a", input_type="query").status_code == 200
    assert served.service._open == 0
