"""Keys that are cast by vector are the keys that ``keys.sql`` makes, and the digest by which records are found narrows them."""

from __future__ import annotations

import uuid

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import enrichstatus as es
from enrichstatus.lookup.tasks import KEYS_SQL, create_vocabularies, with_uuids
from enrichstatus.schema import FIELDS
from tests.support.cases import cases

usual = st.uuids(allow_nil=True).map(str)
#: what is nearly spelled as usual, and of the same length
nearly = st.builds(
    lambda text, place, letter: text[:place] + letter + text[place + 1 :],
    usual,
    st.integers(0, 35),
    st.sampled_from("-gG 0aF\u0660é\0{"),
)
other = st.sampled_from(
    ["", " ", "f81d4fae7dec11d0a76500a0c91e6bf6", "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}", "\tF81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"]
)  # fmt: skip
values = st.one_of(usual, usual.map(str.upper), usual, nearly, other, st.none())


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as con:
        create_vocabularies(con, FIELDS)
        yield con


def keys(con: duckdb.DuckDBPyConnection, column: pa.ChunkedArray, *, by_vector: bool) -> list[str | None]:
    place = pa.array(range(len(column)))
    table = pa.table({"position": place, "entityId": column, "entityType": column, "field": column})
    con.register("given", with_uuids(table) if by_vector else table)
    found = con.execute(f"select castEntityId::varchar from ({KEYS_SQL}) order by position")  # noqa: S608  of a constant
    return [value for (value,) in found.fetchall()]


@settings(max_examples=cases(60, 20_000), deadline=None)
@given(
    chunks=st.lists(st.one_of(st.lists(usual, max_size=6), st.lists(values, max_size=6)), max_size=3),
    cut=st.integers(0, 3),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
)
def test_keys_cast_by_vector_are_those_of_the_query(
    con: duckdb.DuckDBPyConnection, chunks: list[list[str | None]], cut: int, kind: pa.DataType
):
    """Of text in any spelling, of any Arrow type, in several pieces and cut out of longer ones; where all is usual, without DuckDB."""
    column = pa.chunked_array([pa.array(chunk, kind)[cut:] for chunk in chunks], kind)
    assert keys(con, column, by_vector=True) == keys(con, column, by_vector=False)
    table = pa.table({"entityId": column})
    all_usual = all(text and len(text) == 36 and str(_uuid(text)) == text.lower() for text in column.to_pylist())
    assert (with_uuids(table).schema.field("entityId").type == pa.uuid()) == all_usual


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


@settings(max_examples=cases(30, 2_000), deadline=None)
@given(entity=st.uuids(allow_nil=True), field=st.sampled_from(FIELDS))
def test_the_digest_is_that_of_files_made_before(entity: uuid.UUID, field: str):
    """It is made of the bits of a UUID now, and of its text before: a file's index holds the same values."""
    bits = entity.int
    expected = (bits >> 96) ^ (bits & 0xFFFFFFFF) ^ FIELDS.index(field)
    text = str(entity)
    assert expected == int(text[:8], 16) ^ int(text[-8:], 16) ^ FIELDS.index(field)
    with _STORE._cursor() as con:
        found = con.execute(
            "select enrichment_probe($entity::uuid, $field)", {"entity": text, "field": field}
        ).fetchall()
    assert found == [(expected,)]


_STORE = es.EnrichmentStore()
