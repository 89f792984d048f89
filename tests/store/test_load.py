"""Records into a store: every kind of input, every kind of mistake, and nothing lost or half done."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.schema import SCHEMA, snake
from tests.support.cases import crossed
from tests.support.factory import NOW, ORG, record, task, uid

RECORDS = [
    record(0),
    record(1, status="pending", dataFound=None),
    record(2, error='it\'s broken, "badly"\nand on two lines', status="failed", dataFound=False),
    record(3, entityType="company", field="phones", globalEnrichmentId="g", creditTransactionId="c"),
]


def everything(store: es.EnrichmentStore) -> pd.DataFrame:
    tasks = [task(0), task(1), task(2), task(3, "phones") | {"entityType": "company"}]
    return store.lookup(tasks, columns="all", now="2026-11-16T08:00:01Z")


@pytest.fixture
def expected() -> pd.DataFrame:
    store = es.EnrichmentStore(org_id=ORG)
    store.load(RECORDS)
    return everything(store)


def write(folder: Path, name: str) -> Path:
    """Write `RECORDS` in the format that the name says."""
    path = folder / name
    frame = pd.DataFrame(RECORDS)
    stem = name.removesuffix(".gz").removesuffix(".zst")
    if stem.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
        return path
    text = {
        "csv": lambda: frame.to_csv(index=False),
        "semicolon.csv": lambda: frame.to_csv(index=False, sep=";"),
        "tsv": lambda: frame.to_csv(index=False, sep="\t"),
        "json": lambda: json.dumps(RECORDS),
        "pretty.json": lambda: json.dumps(RECORDS, indent=2),
        "ndjson": lambda: "\n".join(map(json.dumps, RECORDS)),
        "jsonl": lambda: "\n".join(map(json.dumps, RECORDS)) + "\n",
    }[stem.partition(".")[2]]()
    compression = "gzip" if name.endswith(".gz") else "zstd" if name.endswith(".zst") else None
    with pa.output_stream(path, compression=compression) as file:
        file.write(text.encode())
    return path


FILES = [
    "r.csv",
    "r.semicolon.csv",
    "r.tsv",
    "r.json",
    "r.pretty.json",
    "r.ndjson",
    "r.jsonl",
    "r.parquet",
    "r.csv.gz",
    "r.ndjson.zst",
    "r.json.gz",
]


@pytest.mark.parametrize("name", FILES)
def test_every_file_format_gives_the_same_store(
    tmp_path: Path, expected: pd.DataFrame, name: str, store: es.EnrichmentStore
):
    """CSV, TSV, JSON, NDJSON and Parquet, compressed too, all tell the same records."""
    assert store.load(write(tmp_path, name)).inserted == 4
    pd.testing.assert_frame_equal(everything(store), expected)


def typed() -> pa.Table:
    text = pa.Table.from_pylist(RECORDS)
    columns = {f.name: text[f.name] for f in SCHEMA} | {
        name: pa.array(pd.to_datetime(text[name].to_pandas(), utc=True), pa.timestamp("us", "UTC"))
        for name in ("createdAt", "updatedAt")
    }
    return pa.table(columns).cast(SCHEMA)


FRAMES: dict[str, Any] = {
    "dicts": lambda: RECORDS,
    "pandas": lambda: pd.DataFrame(RECORDS),
    "pandas typed": lambda: typed().to_pandas(),
    "pandas nanoseconds": lambda: (
        typed().to_pandas().assign(createdAt=lambda f: f["createdAt"].astype("datetime64[ns, Europe/Paris]"))
    ),
    "polars": lambda: pl.DataFrame(RECORDS),
    "polars lazy": lambda: pl.LazyFrame(RECORDS),
    "arrow": typed,
    "arrow dictionaries": lambda: typed().set_column(5, "field", typed()["field"].dictionary_encode()),
    "reader": lambda: pa.RecordBatchReader.from_batches(SCHEMA, typed().to_batches()),
    "relation": lambda: duckdb.from_arrow(typed()),
    "snake case": lambda: pd.DataFrame(RECORDS).rename(columns=snake),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_kind_of_frame_gives_the_same_store(expected: pd.DataFrame, kind: str, store: es.EnrichmentStore):
    """pandas, polars, Arrow, a relation, a stream and a list of dicts, typed or as text, all tell the same records."""
    assert store.load(FRAMES[kind]()).inserted == 4
    pd.testing.assert_frame_equal(everything(store), expected)


def test_globs_and_lists_of_paths_are_one_load(tmp_path: Path, expected: pd.DataFrame, store: es.EnrichmentStore):
    """A glob, or a list that mixes formats, is read as one; a name with brackets is a name."""
    for number, one in enumerate(RECORDS[:3]):
        (tmp_path / f"part{number}.json").write_text(json.dumps([one]))
    (tmp_path / "odd[1].csv").write_text(pd.DataFrame(RECORDS[3:]).to_csv(index=False))
    report = store.load([str(tmp_path / "*.json"), tmp_path / "odd[1].csv", tmp_path / "part0.json"])
    assert (report.read, report.inserted) == (4, 4)
    pd.testing.assert_frame_equal(everything(store), expected)


def test_columns_under_other_names_are_read_with_columns(store: es.EnrichmentStore):
    """``columns=`` renames theirs to ours, and says so where a name is not there."""
    theirs = pd.DataFrame(RECORDS).rename(columns={"entityId": "Contact ID", "status": "State"})
    with pytest.raises(es.ValidationError, match=r"need the columns entityId, status; found .*Contact ID.*columns="):
        store.load(theirs)
    assert store.load(theirs, columns={"Contact ID": "entityId", "State": "status"}).inserted == 4
    with pytest.raises(es.ValidationError, match="renames Nope"):
        store.load(theirs, columns={"Nope": "entityId"})
    with pytest.raises(es.ValidationError, match="renames entity"):
        store.load(theirs, columns={"Contact ID": "entity"})


def test_loading_again_changes_nothing(store: es.EnrichmentStore):
    """The same records a second time are unchanged, and counted so."""
    assert str(store.load(RECORDS)) == "4 read: 4 inserted, 0 updated, 0 unchanged, 0 rejected"
    assert str(store.load(RECORDS)) == "4 read: 0 inserted, 0 updated, 4 unchanged, 0 rejected"


def test_the_newest_version_of_a_record_stays(store: es.EnrichmentStore):
    """A newer updatedAt replaces, an older one does not, and within one load the newest is taken."""
    old, new = (
        record(0, status=name, updatedAt=f"2026-11-16T08:0{n}:00Z") for n, name in enumerate(("pending", "finished"))
    )
    report = store.load([new, old, record(5)])
    assert (report.inserted, report.updated, report.unchanged) == (2, 0, 1)
    assert store.load([old]).unchanged == 1
    newest = old | {"updatedAt": "2026-11-16T08:02:00Z", "status": "failed"}
    report = store.load([newest, new, old])
    assert (report.inserted, report.updated, report.unchanged) == (0, 1, 2)
    assert store.lookup([task(0), task(5)], now=NOW)["status"].tolist() == ["failed", "finished"]
    assert "2 records" in repr(store)
    assert store.load([record(5, updatedAt=None, status="failed")]).unchanged == 1  # of unknown age is not newer


def test_of_two_versions_of_one_time_the_ended_one_stays(store: es.EnrichmentStore):
    """A tie is broken the same way whichever comes first, and never back to pending."""
    ended, pending = record(0), record(0, status="pending", dataFound=None)
    store.load([ended])
    assert store.load([pending]).unchanged == 1
    assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]


def test_records_without_an_id_get_the_same_one_each_time(store: es.EnrichmentStore):
    """Without ids, loading twice still stores once; key and createdAt tell records apart."""
    anonymous = [{name: value for name, value in one.items() if name != "id"} for one in RECORDS]
    later = anonymous[0] | {"createdAt": "2026-11-16T08:30:00Z", "status": "failed"}
    assert store.load([*anonymous, later]).inserted == 5
    assert store.load([later, *anonymous[::-1]]).unchanged == 5
    assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["failed"]


def test_org_id_stamps_records_that_carry_none():
    """``org_id=``, or the store's, is given to records without an organization and to no others."""
    with es.EnrichmentStore() as store:
        with pytest.raises(es.ValidationError, match="orgId is missing, and no organization was given"):
            store.load([record(0, orgId=None)])
        store.load([record(0, orgId=None), record(1, orgId="org_9"), record(2, orgId=" ")], org_id="org_7")
        assert store.lookup([task(0), task(1), task(2)], org_id="org_7", how="inner", now=NOW)["entityId"].tolist() == [
            uid(0),
            uid(2),
        ]
    with es.EnrichmentStore(org_id="org_8") as store:
        store.load([record(0, orgId=None)])
        assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]


BAD = {
    "id": ("17", "is not a UUID"),
    "entityId": ("jane@x.example", "is not a UUID"),
    "entityType": ("robot", "is not one of person, company"),
    "field": ("fax", "is not one of emails, phones, summary"),
    "createdAt": ("yesterday", "is not an ISO 8601 timestamp"),
    "updatedAt": ("31/12/2026", "is not an ISO 8601 timestamp"),
    "dataFound": ("perhaps", "is not true or false"),
    "status": (None, "is missing"),
}


@pytest.mark.parametrize("column", BAD)
def test_a_bad_row_is_never_dropped_in_silence(column: str, store: es.EnrichmentStore):
    """``raise`` loads nothing and names the row; ``reject`` loads the good ones and returns the bad with the reason."""
    value, reason = BAD[column]
    records = [record(0), record(1, **{column: value}), record(2)]
    with pytest.raises(
        es.ValidationError,
        match=f"1 bad record:\n  row 1: {column} .*{reason}\nRows are counted from 0, a header not counted. Nothing was loaded",
    ) as caught:
        store.load(records)
    assert caught.value.problems is not None
    assert store.lookup([task(0)], now=NOW)["status"].isna().all()
    report = store.load(records, errors="reject")
    assert (report.read, report.inserted, report.rejected) == (3, 2, 1)
    for rejects in (report.rejects, caught.value.problems):
        assert rejects[["row", "column", "reason"]].values.tolist() == [[1, column, reason]]
        assert rejects["value"].fillna("").tolist() == [value or ""]


def test_all_that_is_wrong_with_a_row_is_said(store: es.EnrichmentStore):
    """A row with several mistakes is one rejected row with a line for each."""
    report = store.load([record(0, id="x", field=None, dataFound="?", createdAt=None)], errors="reject")
    assert report.rejected == 1
    assert report.rejects["column"].tolist() == ["field", "id", "createdAt", "dataFound"]


def test_rejects_of_several_files_name_the_file_and_its_row(tmp_path: Path, store: es.EnrichmentStore):
    """With several files a reject says in which, and counts the rows of that file."""
    for name, records in {"a": RECORDS, "b": [*RECORDS[:2], record(9, field="fax")]}.items():
        (tmp_path / f"{name}.ndjson").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(es.ValidationError, match=r"row 2 of .*b\.ndjson: field 'fax'"):
        store.load(str(tmp_path / "*.ndjson"))
    rejects = store.load(str(tmp_path / "*.ndjson"), errors="reject").rejects
    assert rejects["file"].tolist() == [str(tmp_path / "b.ndjson")]
    assert rejects["row"].tolist() == [2]


def test_oddities_that_are_no_mistakes_are_kept_as_they_came(store: es.EnrichmentStore):
    """UpdatedAt before createdAt, dataFound while pending, an unknown status and no updatedAt are loaded as they are."""
    odd = [
        record(0, updatedAt="2026-11-16T07:00:00Z"),
        record(1, status="pending", dataFound=True),
        record(2, status="Vanished "),
        record(3, updatedAt=None),
    ]
    assert store.load(odd).inserted == 4
    answer = store.lookup([task(n) for n in range(4)], columns=["status", "updatedAt"], now="2026-11-16T08:00:01Z")
    assert answer["status"].tolist() == ["finished", "pending", "Vanished", "finished"]
    assert answer["updatedAt"][0] == pd.Timestamp("2026-11-16T07:00:00Z")
    assert pd.isna(answer["updatedAt"][3])


def test_timestamps_are_read_as_utc_and_from_any_zone(store: es.EnrichmentStore, monkeypatch: pytest.MonkeyPatch):
    """Text without a zone is UTC whatever this machine's zone is; an offset is honoured; impossible years are refused."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    forms = ["2026-11-16T08:00:00", "2026-11-16 10:30:00+02:30", "2026-11-16T08:00:00.000Z", "2026-11-16"]
    store.load([record(n, createdAt=form) for n, form in enumerate(forms)])
    made = store.lookup([task(n) for n in range(4)], columns="createdAt", now=NOW)["createdAt"]
    assert made.dt.strftime("%H:%M").tolist() == ["08:00", "08:00", "08:00", "00:00"]
    naive = pd.DataFrame([record(9)]).assign(createdAt=pd.Timestamp("2026-11-16 08:00"))
    store.load(naive)
    assert store.lookup([task(9)], columns="createdAt", now=NOW)["createdAt"][0] == pd.Timestamp("2026-11-16T08:00Z")
    for impossible in ("infinity", "20261-01-01", 1768545600):
        with pytest.raises(es.ValidationError, match="createdAt"):
            store.load([record(8, createdAt=impossible)])


def test_a_json_object_without_a_type_is_a_person(tmp_path: Path, store: es.EnrichmentStore):
    """In JSON and lists of dicts, which leave members out one by one, an absent entityType is a person; in a frame a null is not."""
    bare = {name: value for name, value in record(0).items() if name != "entityType"}
    (tmp_path / "r.json").write_text(json.dumps([bare, record(1, entityType="company")]))
    assert store.load(tmp_path / "r.json").inserted == 2
    assert store.load([bare, record(1, entityType="company")]).unchanged == 2
    with pytest.raises(es.ValidationError, match="row 0: entityType is missing"):
        store.load(pd.DataFrame([bare, record(1, entityType="company")]))
    assert store.load(pd.DataFrame([bare])).unchanged == 1


@pytest.mark.parametrize(
    "nothing",
    [[], pd.DataFrame(columns=list(record())), SCHEMA.empty_table()],
    ids=["list", "pandas", "arrow"],
)
def test_no_records_are_no_error(nothing: Any, store: es.EnrichmentStore):
    """An answer of nothing loads nothing and says so."""
    assert store.load(nothing).read == 0


def test_an_empty_json_array_is_no_error(tmp_path: Path, store: es.EnrichmentStore):
    """A file that is just [] is an answer of nothing, alone and beside others."""
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "some.json").write_text(json.dumps(RECORDS))
    assert store.load(tmp_path / "none.json").read == 0
    assert store.load(str(tmp_path / "*.json")).read == 4


def test_another_organization_cannot_replace_a_record(store: es.EnrichmentStore):
    """A record of another organization that has our record's id is another record, however new."""
    store.load([record(0)])
    report = store.load([record(0, orgId="org_2", status="failed", updatedAt="2027-01-01"), record(0, orgId="org_2")])
    assert (report.inserted, report.updated, report.unchanged) == (1, 0, 1)
    assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]
    assert store.lookup([task(0)], now=NOW, org_id="org_2")["status"].tolist() == ["failed"]


def test_whole_numbers_that_pandas_made_floats_are_read_as_they_were(store: es.EnrichmentStore):
    """A blank among numbers turns a column into floats; 17.0 is still 17, and 1.0 still true."""
    frame = pd.DataFrame([record(0), record(1), record(2)]).assign(orgId=[17, None, 18], dataFound=[1, 0, None])
    assert frame["orgId"].dtype == float
    store.load(frame, org_id="17")
    answer = store.lookup([task(0), task(1)], org_id="17", now=NOW)
    assert answer["dataFound"].tolist() == [True, False]


def test_the_csv_of_spreadsheets_is_read(tmp_path: Path, store: es.EnrichmentStore):
    """Line ends of one kind between rows and of the other in a cell, a byte order mark, and columns without a name."""
    header = ",".join([*record(), "", ""])
    lines = [
        ",".join(
            f'"{value}"' if value is not None else "" for value in [*record(n, error="one\ntwo").values(), None, None]
        )
        for n in (0, 1)
    ]
    (tmp_path / "r.csv").write_bytes(("\ufeff" + "\r\n".join([header, *lines])).encode())
    (tmp_path / "s.csv").write_bytes(
        header.replace(",", ";").encode()
        + b"\n"
        + lines[0]
        .replace(",", ";")
        .replace("\n", "\r\n")
        .replace(uid(0), uid(5))
        .replace(record(0)["id"], uid(77))
        .encode()
    )
    assert store.load([tmp_path / "r.csv", tmp_path / "s.csv"]).inserted == 3
    assert store.lookup([task(0), task(5)], columns="error", now=NOW)["error"].tolist() == ["one\ntwo", "one\r\ntwo"]


@pytest.mark.parametrize(("ending", "compression"), crossed(["csv", "ndjson", "json"], ["gz", "zst"]))
def test_a_compressed_file_that_is_cut_off_is_never_read_in_part(
    tmp_path: Path, store: es.EnrichmentStore, ending: str, compression: str
):
    """Wherever a compressed file was cut, it is refused: what can still be read of it is not taken for the whole."""
    whole = tmp_path / f"r.{ending}.{compression}"
    records = [record(n, error=uid(n)) for n in range(3000)]
    text = {
        "csv": lambda: pd.DataFrame(records).to_csv(index=False),
        "json": lambda: json.dumps(records),
        "ndjson": lambda: "\n".join(map(json.dumps, records)) + "\n",
    }[ending]()
    with pa.output_stream(whole, compression="gzip" if compression == "gz" else "zstd") as file:
        file.write(text.encode())
    content = whole.read_bytes()
    for length in (10, len(content) // 3, len(content) // 2, len(content) - 50, len(content) - 1):
        whole.write_bytes(content[:length])
        with pytest.raises(es.ValidationError, match=r"cannot be read|is empty"):
            store.load(whole)
    whole.write_bytes(content)
    assert store.load(whole).inserted == 3000


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_files_that_spell_a_column_differently_are_read_alike(tmp_path: Path, ending: str, store: es.EnrichmentStore):
    """One file with wire names and one in snake_case, loaded together, lose nothing to each other."""
    ours, theirs = (
        pd.DataFrame([record(0)]),
        pd.DataFrame([record(1, orgId="org_2", entityType="company")]).rename(columns=snake),
    )
    for name, frame in {"a": ours, "b": theirs}.items():
        path = tmp_path / f"{name}.{ending}"
        if ending == "csv":
            frame.to_csv(path, index=False)
        elif ending == "json":
            frame.to_json(path, orient="records")
        else:
            frame.to_parquet(path)
    assert store.load(str(tmp_path / f"*.{ending}"), org_id=ORG).inserted == 2
    tasks = [task(0), task(1) | {"entityType": "company"}]
    assert store.lookup(tasks, now=NOW)["status"].fillna("-").tolist() == ["finished", "-"]
    assert store.lookup(tasks, now=NOW, org_id="org_2")["dataFound"].fillna(value=False).tolist() == [False, True]


def test_a_quote_that_nothing_closes_swallows_no_rows(tmp_path: Path, store: es.EnrichmentStore):
    """A quote opened in the last column and never closed is an error, not one long cell; a closed one is a cell."""
    columns = ["entityId", "field", "status", "createdAt", "error"]
    rows = [f"{uid(n)},emails,failed,2026-01-01," for n in range(3)]
    path = tmp_path / "r.csv"
    path.write_text("\n".join([",".join(columns), rows[0] + '"oops', *rows[1:], ""]))
    with pytest.raises(
        es.ValidationError, match=r"r\.csv', line 2, cannot be read: a quote opens the cell .* none closes it"
    ):
        store.load(path, org_id=ORG)
    with pytest.raises(es.ValidationError, match="cannot be read"):
        store.lookup(path)
    path.write_text("\n".join([",".join(columns), *rows[:2], rows[2] + '"two\nlines"', ""]))
    assert store.load(path, org_id=ORG).inserted == 3


def test_columns_that_differ_in_case_alone_and_disagree_are_refused(tmp_path: Path, store: es.EnrichmentStore):
    """Which of ID and id is meant is not guessed, in one file or over several."""
    frame = pd.DataFrame([record(0)])
    frame.assign(ID="x").to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(es.ValidationError, match=r"row 0 of .*: id '.*, x' stands there more than once, and differs"):
        store.load(tmp_path / "a.csv")


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "truncated.json": (json.dumps(RECORDS).encode()[:-40], "truncated.json.* is cut off"),
    "cut_behind_a_comma.json": (
        json.dumps(RECORDS[:2]).encode()[:-1] + b",\n",
        "line 2, cannot be read: .* is cut off",
    ),
    "truncated.ndjson": (json.dumps(RECORDS[0]).encode()[:-40], "cannot be read"),
    "wrong_header.csv": (b"a,b\n1,2\n", "need the columns createdAt, entityId, field, status; found a, b"),
    "header_only.csv": (b"a,b\n", "need the columns"),
    "ragged.csv": (pd.DataFrame(RECORDS[:2]).to_csv(index=False).encode() + b"x,y\n", "cannot be read"),
    "latin.csv": (
        pd.DataFrame([record(0, error="Müller")]).to_csv(index=False).encode("latin-1"),
        "cannot be read",
    ),
    "blank.csv": (b"\n\n", "cannot be read"),
    "empty.csv": (b"", "is empty"),
    "empty.json": (b"", "is empty"),
    "strings.json": (b'["a", "b"]', "is not a JSON object"),
    "wrapped.json": (json.dumps({"rival": RECORDS}).encode(), "need the columns .*found rival"),
    "noise.parquet": (b"PAR1 this is none", "cannot be read"),
    "records.ods": (b"PK", "no known ending; expected .csv"),
    "broken.csv.gz": (gzip.compress(b"a,b\n" * 1000)[:20], "cannot be read"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_says_what_is_wrong(tmp_path: Path, name: str, store: es.EnrichmentStore):
    """Truncated, ragged, empty or foreign files raise one readable line, and nothing is loaded."""
    content, message = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(es.ValidationError, match=message) as caught:
        store.load(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "0 records" in repr(store)


def test_paths_that_name_nothing_or_a_folder_say_so(tmp_path: Path, store: es.EnrichmentStore):
    """A path or glob that matches nothing, and a folder, are errors that say what to do."""
    with pytest.raises(es.ValidationError, match="matches no file"):
        store.load(tmp_path / "nowhere*.json")
    with pytest.raises(es.ValidationError, match=r"is a folder; name its files, e\.g\. "):
        store.load(tmp_path)


def test_comment_signs_and_blank_looking_cells_lose_no_rows(tmp_path: Path, store: es.EnrichmentStore):
    """A CSV is taken literally: a # is text, quotes hold commas and line ends, and every line counts."""
    rows = [record(n, error='#1, "quoted"\nsecond line', createdBy="# not a comment") for n in range(30)]
    pd.DataFrame(rows)[["createdBy", *(name for name in rows[0] if name != "createdBy")]].to_csv(
        tmp_path / "r.csv", index=False
    )
    assert store.load(tmp_path / "r.csv").inserted == 30
    assert store.lookup([task(7)], columns="error", now=NOW)["error"][0] == '#1, "quoted"\nsecond line'


SPELLINGS = ["orgid", "ORG_ID", "Org_Id", " orgId ", "\ufefforgId", "org_id"]


def _renamed(given: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in given.items()}


@pytest.mark.parametrize(
    ("spelled", "kind"),
    crossed(SPELLINGS, [list, pd.DataFrame, pl.DataFrame, pa.Table.from_pylist]),
    ids=lambda one: getattr(one, "__name__", None),
)
def test_names_are_folded_in_every_kind_of_frame(kind: Any, spelled: str, store: es.EnrichmentStore):
    """Records whose organization is spelled in two ways in one input each keep theirs, and no value is lost."""
    mixed = [record(0), _renamed(record(1, orgId="rival"), orgId=spelled)]
    columns = {name: None for one in mixed for name in one}
    store.load(kind([columns | one for one in mixed]))
    assert store.lookup([task(0), task(1)], now=NOW)["status"].notna().tolist() == [True, False]
    assert store.lookup([task(0), task(1)], org_id="rival", now=NOW)["status"].notna().tolist() == [False, True]


def test_columns_that_fold_to_one_name_are_one_or_refused_by_row(store: es.EnrichmentStore):
    """Where they never disagree they are coalesced; where they do, the rows are named, but no other organization."""
    store.load([_renamed(record(0), dataFound="data_found"), record(1) | {"DataFound": True}])
    assert store.lookup([task(0), task(1)], now=NOW)["dataFound"].tolist() == [True, True]
    with pytest.raises(
        es.ValidationError, match="row 1: status 'finished, failed' stands there more than once"
    ) as caught:
        store.load([record(0), record(1) | {"Status": "failed"}])
    assert caught.value.problems is not None
    assert caught.value.problems["row"].tolist() == [1]
    with pytest.raises(es.ValidationError, match="row 0: orgId stands there more than once, and differs") as caught:
        store.load([record(0) | {"org_id": "rival"}])
    assert "rival" not in str(caught.value)
    twice = pa.table([*(pa.array([value]) for value in record(0).values()), pa.array(["rival"])], [*record(0), "orgId"])
    with pytest.raises(es.ValidationError, match="two columns named orgId"):
        store.load(twice)


@pytest.mark.parametrize(
    "name",
    [
        "organizationId",
        "organisation_id",
        "ORGANIZATION",
        "org",
        "workspaceId",
        "tenant_id",
        "Account ID",
        "organization-uuid",
    ],
)
def test_what_looks_like_the_organization_is_not_left_aside(name: str, store: es.EnrichmentStore):
    """Without an orgId it is refused with the remedy, in one record among others too; the remedy works either way."""
    other = _renamed(record(1, orgId="rival"), orgId=name)
    with pytest.raises(
        es.ValidationError, match=rf"columns={{\"{name}\": \"orgId\"}}, or columns={{\"{name}\": None}}"
    ):
        store.load([other])
    with pytest.raises(es.ValidationError, match=f"row 1: orgId is missing, but {name} looks like it") as caught:
        store.load([record(0), other])
    assert "rival" not in str(caught.value)
    assert store.load([record(0), other], columns={name: "orgId"}).inserted == 2
    assert store.lookup([task(1)], now=NOW)["status"].isna().all()
    assert store.load([record(0), other], columns={name: None}).inserted == 1
    assert store.lookup([task(1)], now=NOW)["status"].notna().all()


def test_statuses_of_the_contract_are_known_in_any_case(store: es.EnrichmentStore):
    """Those words are known in any case and with outer white space; any other is kept as it came."""
    spelled = ["PENDING", " Finished\n", "TimeOut", "failed\t", "In_Progress"]
    store.load([record(n, status=word, dataFound=None) for n, word in enumerate(spelled)])
    found = store.lookup([task(n) for n in range(5)], now="2026-11-16T08:00:01Z")
    assert found["status"].tolist() == ["pending", "finished", "timeout", "failed", "In_Progress"]


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\u00a0", "\u3000", "\ufeff", " \r\n"])
def test_outer_white_space_is_no_part_of_an_organization(space: str):
    """Neither of the one that looks up, nor of a record's, nor of load's org_id=."""
    with es.EnrichmentStore(org_id=f"{space}{ORG}{space}") as store:
        store.load([record(0, orgId=f"{ORG}{space}"), record(1, orgId=f"{space}{ORG}")])
        store.load([{name: value for name, value in record(2).items() if name != "orgId"}], org_id=f"{ORG}{space}")
        tasks = [task(n) for n in range(3)]
        assert store.lookup(tasks, now=NOW)["status"].notna().all()
        assert store.lookup(tasks, org_id=f"{ORG}{space}", now=NOW)["status"].notna().all()
        assert len(store.query({"tasks": tasks}, org_id=f"{space}{ORG}")) == 3


FULL = """
import resource, signal, sys
import enrichstatus as es
import pandas as pd
store = es.EnrichmentStore(sys.argv[1], org_id="org_1")
names = {"field": "emails", "status": "finished", "createdAt": "2026-11-16T08:00:00Z"}
store.load([{"entityId": f"{0:032x}"} | names])
# what is written beyond this is refused, as on a full disk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    store.load(pd.DataFrame({"entityId": [f"{n:032x}" for n in range(30_000)]}).assign(**names))
except es.StoreError as error:
    print(error)
print(len(store.records()))
"""


def test_a_load_for_which_the_disk_is_too_full_changes_nothing(tmp_path: Path):
    """It is an error that says so; the store goes on, and its file holds what it held."""
    path = tmp_path / "store.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    message, count = done.stdout.splitlines()
    assert "Could not write file" in message
    with es.EnrichmentStore(path, org_id="org_1", read_only=True) as store:
        assert (count, len(store.records())) == ("1", 1)
