"""Workbooks in and out: cells stay what they are, nothing becomes a formula, and what is not one table is refused with what to do."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msoffcrypto.format.ooxml
import pandas as pd
import pyarrow as pa
import pytest
import xlsxwriter
import xlwt

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.errors import HeaderWarning
from enrichstatus.files.reading import workbook
from enrichstatus.files.reading.read import Files
from enrichstatus.files.writing import workbook_out
from enrichstatus.files.writing.write import write
from enrichstatus.frames.frames import of_files, to_pandas
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, uid

HEAD = ["lead_id", "name"]


def book(
    path: Path, sheets: dict[str, Sequence[Sequence[Any]]], *, merged: str = "", hidden: str = "", far: str = ""
) -> str:
    """Make a workbook; dates are dates, and a cell that begins with = is a formula."""
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm", "strings_to_urls": False}) as made:
        for name, rows in sheets.items():
            sheet = made.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
            if name == hidden:
                sheet.hide()
            if merged:
                sheet.merge_range(merged, "merged")
            if far:
                sheet.write(far, "stray")
    return str(path)


def read(path: Any, **how: Any) -> pd.DataFrame:
    return to_pandas(of_files(Files(path, **how)).assign(pa.table({})))


def test_cells_come_in_as_what_they_are(tmp_path: Path):
    """Numbers, days, instants and truth values stay such, whole numbers whole; a mixture is text; what is empty is null."""
    day, instant = dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3, 4)
    rows = [
        ["id", "n", "f", "mixed", "day", "instant", "yes", "id", "", 2026],
        ["a", 1, 0.5, 5, day, instant, True, "x", "u", None],
        ["=1+1", 2, 2, "t", day, day, False, None, "v", None],
        [None, None, None, 0.5, None, None, None, "z", None, None],
    ]
    path = book(tmp_path / "in.xlsx", {"L": rows, "empty": []})
    with pytest.warns(es.HeaderWarning, match="'id 2', 'column 9'"):
        frame = read(path)
    assert frame.columns.tolist() == ["id", "n", "f", "mixed", "day", "instant", "yes", "id 2", "column 9", "2026"]
    assert frame["id"].tolist()[:2] == ["a", "0"]  # what the program that made it says the formula comes to
    assert frame["n"].dtype == "Int64"
    assert frame["f"].tolist()[:2] == [0.5, 2.0]
    assert frame["mixed"].tolist() == ["5", "t", "0.5"]
    assert frame["instant"].tolist()[:2] == [pd.Timestamp(instant), pd.Timestamp(day)]
    assert frame["yes"].dtype == "boolean"
    assert frame.loc[2].isna().tolist() == [True, True, True, False, True, True, True, False, True, True]
    # below one another, a column is of one kind
    with pytest.warns(es.HeaderWarning, match="'id 2', 'column 9'"):
        both = read([path, book(tmp_path / "more.xlsx", {"L": [["n", "id"], ["x", 7]]})])
    assert both["n"].tolist() == ["1", "2", None, "x"] or both["n"].fillna("").tolist() == ["1", "2", "", "x"]
    assert both["id"].tolist()[3] == "7"


def test_what_a_sheet_shows_is_what_goes_on(tmp_path: Path):
    """Long numbers have plain digits, an error is its text, and a duration is one in a workbook, and hours in text."""
    path = tmp_path / "in.xlsx"
    with xlsxwriter.Workbook(path) as made:
        sheet = made.add_worksheet()
        hours = made.add_format({"num_format": "[h]:mm"})
        sheet.write_row(1, 1, ["n", "mixed", "error", "spent"])
        sheet.write_row(2, 1, [12345678901234567, "x"])
        sheet.write_row(3, 1, [1, 12345678901234567, 5])
        sheet.write_formula(2, 3, "=NA()", None, "#N/A")
        sheet.write_formula(4, 3, "=1/0", None, "#DIV/0!")
        for row, days in enumerate((1.25, 0.00001, 0.5), 2):
            sheet.write(row, 4, days, hours)
    table = of_files(Files(str(path))).assign(pa.table({}))
    write(table, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().replace('"', "").splitlines() == [
        "n,mixed,error,spent", "12345678901234570,x,#N/A,30:00:00", "1,12345678901234570,5,0:00:00.864", ",,#DIV/0!,12:00:00",
    ]  # fmt: skip
    write(table, tmp_path / "out.xlsx")
    again = of_files(Files(str(tmp_path / "out.xlsx"))).assign(pa.table({}))
    assert again["spent"].to_pylist() == table["spent"].to_pylist()
    assert "[h]:mm:ss" in zipfile.ZipFile(tmp_path / "out.xlsx").read("xl/styles.xml").decode()
    assert again["n"].to_pylist() == ["12345678901234570", "1", None]
    write(table, tmp_path / "out.ndjson")
    assert json.loads((tmp_path / "out.ndjson").read_text().splitlines()[0])["spent"] == "30:00:00"


def test_an_old_workbook_is_read_whatever_its_ending(tmp_path: Path):
    """The workbook of an Excel before 2007 is read by its content, as .xls and as .xlsx."""
    old = xlwt.Workbook()
    sheet = old.add_sheet("L")
    for place, (name, cell) in enumerate({"lead_id": uid(0), "since": dt.datetime(2026, 1, 2), "n": 7}.items()):
        sheet.write(0, place, name)
        sheet.write(1, place, cell, xlwt.easyxf(num_format_str="yyyy-mm-dd" if name == "since" else "general"))
    for name in ("old.xls", "old.xlsx"):
        old.save(tmp_path / name)
        assert read(tmp_path / name).astype(str).values.tolist() == [[uid(0), "2026-01-02", "7"]]


def test_a_corrupt_workbook_never_ends_the_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """What a workbook says of its own size is not believed where memory would be asked for in vain; any other damage is refused too.

    The library's own words about it are not shown.
    """
    old, new, damaged = xlwt.Workbook(), tmp_path / "new.xlsx", tmp_path / "damaged.xls"
    sheet = old.add_sheet("L")
    for row in range(4):
        for place, cell in enumerate([*HEAD, 3.5, True]):
            sheet.write(row, place, cell)
    old.save(tmp_path / "old.xls")
    whole = (tmp_path / "old.xls").read_bytes()
    dimensions = whole.index(b"\x00\x02\x0e\x00")
    damaged.write_bytes(whole[: dimensions + 11] + b"\x3e" + whole[dimensions + 12 :])  # a thousand million rows
    with (
        zipfile.ZipFile(book(new, {"L": [HEAD, ["a", "b"]]})) as right,
        zipfile.ZipFile(tmp_path / "n.xlsx", "w") as wrong,
    ):
        for part in right.namelist():
            wrong.writestr(part, re.sub(rb'uniqueCount="\d+"', b'uniqueCount="99999999999"', right.read(part)))
    (tmp_path / "old.xlsx").write_bytes(damaged.read_bytes())  # read by its content, whatever its ending
    for path in (damaged, tmp_path / "old.xlsx", tmp_path / "n.xlsx"):
        with pytest.raises(
            es.ValidationError, match="it is corrupt, and what it says of its own size is beyond all memory"
        ):
            read(path)
    damaged.write_bytes(whole[:-100])
    with pytest.raises(es.ValidationError, match=r"cannot be read as a workbook: it is corrupt\. Fetch it anew"):
        read(damaged)
    assert capfd.readouterr().err == ""
    for seed in range(cases(3, 400)):
        drawn, altered = random.Random(seed), bytearray(whole)
        for place in drawn.choices(range(len(whole)), k=drawn.choice([1, 2, 4, 16])):
            altered[place] = drawn.choice([0, 255, drawn.randrange(256)])
        damaged.write_bytes(altered)
        with suppress(es.ValidationError, HeaderWarning):
            read(damaged)


def test_what_is_not_one_table_is_refused_with_what_to_do(tmp_path: Path):
    """Of a workbook that cannot be read as one table the message says where it is at fault, and what to do."""
    rows = [HEAD, ["a", "b"]]
    plain = Path(book(tmp_path / "plain.xlsx", {"L": rows}))
    with plain.open("rb") as file, (tmp_path / "locked.xlsx").open("wb") as locked:
        msoffcrypto.format.ooxml.OOXMLFile(file).encrypt("secret", locked)
    (tmp_path / "cut.xlsx").write_bytes(plain.read_bytes()[:3000])
    # the container of a protected or an old workbook, cut off, at which what reads it panics
    (tmp_path / "cut.xls").write_bytes((tmp_path / "locked.xlsx").read_bytes()[:700])
    (tmp_path / "page.xls").write_text("<html><table><tr><td>lead_id</td></tr></table></html>")
    (tmp_path / "text.xlsx").write_text("lead_id,name\n")
    made = book(tmp_path / "f.xlsx", {"L": [*rows, ["=A2", "c"]]})
    for name, old, new in (("uncalculated", b"</f><v>0</v>", b"</f>"), ("astray", b'r="B3"', b'r="B399999999"')):
        with zipfile.ZipFile(made) as whole, zipfile.ZipFile(tmp_path / f"{name}.xlsx", "w") as other:
            for part in whole.namelist():
                other.writestr(part, whole.read(part).replace(old, new))
    sheets = {
        "locked.xlsx": "is protected by a password. Open it in Excel, take the password away",
        "cut.xlsx": "cannot be read as a workbook: .* Fetch it anew, or open it in Excel and save it as .xlsx",
        "cut.xls": "cannot be read as a workbook: .* Fetch it anew, or open it in Excel and save it as .xlsx",
        "page.xls": "is not a workbook, whatever its ending says. It is a page, HTML: open it in Excel, and save it",
        "text.xlsx": "is not a workbook, whatever its ending says. It may be text such as CSV",
        "uncalculated.xlsx": "sheet 'L' cannot be read: the formula in A3 was never calculated. Open the workbook in Excel, save it",
        "astray.xlsx": "is too large to be read: its cells go to B399999999",
        book(tmp_path / "merged.xlsx", {"L": rows}, merged="A1:B1"): "the header has merged cells, A1:B1, .* Unmerge them",
        book(tmp_path / "below.xlsx", {"L": rows}, merged="B3:B5"): "cells are merged, B3:B5, of which the first alone holds",
        book(tmp_path / "stacked.xlsx", {"L": [*rows, [], HEAD]}): "row 3 is empty, and more rows follow it, as of a second table",
        book(tmp_path / "beside.xlsx", {"L": [[*HEAD, "", "x"], [1, 2, "", 3]]}): "two tables side by side, with the empty column C between",
        book(tmp_path / "two.xlsx", {"Leads": rows, "Old": rows}): 'has 2 sheets that hold something, Leads, Old. Say which, or pass sheet="Leads"',
        book(tmp_path / "none.xlsx", {"L": [], "M": []}): "is empty: no sheet of it holds anything",
        book(tmp_path / "bare.xlsx", {"L": []}): "there is no header",
        # what reads workbooks would end the process
        book(tmp_path / "far.xlsx", {"L": rows}, far="KZ1048576"): "is too large to be read: its cells go to KZ1048576. Delete cells",
    }  # fmt: skip
    for name, message in sheets.items():
        with pytest.raises(es.ValidationError, match=message):
            read(tmp_path / name)
    for how, message in (
        ({"sheet": "Leds"}, r"sheet= names 'Leds', but .* has the sheets Leads, Old. Did you mean Leads\?"),
        ({"sheet": 1}, "sheet= is the name of a sheet, not 1"),
    ):
        with pytest.raises(es.ValidationError, match=message):
            read(tmp_path / "two.xlsx", **how)
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(es.ValidationError, match="sheet= is for workbooks, not for"):
        read(tmp_path / "t.csv", sheet="L")


def test_one_sheet_is_meant(tmp_path: Path):
    """Sheets that are empty or hidden are not in the way; skip= leaves out lines above the header, merged ones too."""
    rows = [HEAD, ["a", "b"]]
    path = book(tmp_path / "in.xlsx", {"Leads": rows, "Notes": [["x"]], "Empty": []}, hidden="Notes")
    assert read(path)["name"].tolist() == ["b"]
    assert read(path, sheet="Notes").columns.tolist() == ["x"]
    titled = book(tmp_path / "titled.xlsx", {"L": [["Export of May"], [], *rows]}, merged="A1:B1")
    assert read(titled, skip=1)["name"].tolist() == ["b"]


def test_a_long_sheet_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A column that is whole numbers at first, and text far below, is text from the start; an empty row is found in any piece."""
    monkeypatch.setattr(workbook, "_BATCH", 2)
    rows = [HEAD, *([f"{n}", n] for n in range(5)), ["x", "y"]]
    assert read(book(tmp_path / "in.xlsx", {"L": rows}))["name"].tolist() == ["0", "1", "2", "3", "4", "y"]
    with pytest.raises(es.ValidationError, match="row 8 is empty"):
        read(book(tmp_path / "gap.xlsx", {"L": [*rows, [], ["x", "y"]]}))


AWKWARD = ["=1+1", "+49 30", "-5", "@x", "http://a.example", "<b>hi</b>", 'a"b&c', "two\nlines", "_x0041_", "日本 🎉"]


def test_cells_go_out_as_what_they_are(tmp_path: Path):
    """Text is text whatever it begins with, days and instants are such, and what Excel would round is text; read again, all is the same."""
    count = len(AWKWARD)
    table = pa.table(
        {
            "lead_id": [uid(n) for n in range(count)],
            "text": AWKWARD,
            "number": pa.array([5, None, 10**15, 2**62, *[0] * (count - 4)]),
            "float": [0.5, None, 1 / 3, *[1e300] * (count - 3)],
            "day": pa.array([dt.date(2026, 1, 2), dt.date(1899, 1, 1), None, *[dt.date(1900, 3, 1)] * (count - 3)]),
            "createdAt": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 123000)] * count, pa.timestamp("us", "UTC")),
            "time": [dt.time(1, 2, 3)] * count,
            "yes": pa.array([True, None, *[False] * (count - 2)]),
            "status": [
                "finished",
                "finished",
                "pending",
                "timeout",
                "failed",
                "odd",
                None,
                *["finished"] * (count - 7),
            ],
            "dataFound": pa.array([True, False, *[None] * (count - 2)], pa.bool_()),
        }
    )
    path = tmp_path / "out.xlsx"
    write(table, path)
    frame = read(path)
    assert frame["text"].tolist() == AWKWARD
    assert frame["number"].fillna("-").tolist()[:5] == ["5", "-", str(10**15), str(2**62), "0"]
    assert frame["float"].fillna(0).tolist()[:3] == [0.5, 0, 1 / 3]
    assert frame["day"].fillna("-").tolist()[:4] == ["2026-01-02", "1899-01-01", "-", "1900-03-01"]
    assert (frame["createdAt"] == pd.Timestamp("2026-01-02T03:04:05.123")).all()
    assert (frame["time"] == dt.time(1, 2, 3)).all()
    assert frame["yes"].tolist()[:3] == [True, pd.NA, False]
    with zipfile.ZipFile(path) as archive:
        sheet, styles = (archive.read(f"xl/{name}.xml").decode() for name in ("worksheets/sheet1", "styles"))
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet
    assert 'state="frozen"' in sheet
    assert f'<autoFilter ref="A1:J{count + 1}"/>' in sheet
    coloured = [re.search(rf'<c r="I{row}" s="(\d+)"', sheet) for row in range(2, count + 2)]
    # with data, no data, pending, timeout, failed and unknown each has its own; no record none, and what finished without data that of no data
    assert len({found[1] for found in coloured[:6] if found}) == 6
    assert coloured[6] is None
    assert coloured[7] is not None
    assert coloured[7][1] == coloured[1][1]  # type: ignore[index]
    assert {"FFADEBCD", "FFE8BBA8"} <= set(re.findall(r'fgColor rgb="(\w+)"', styles))


def test_what_a_sheet_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Too many rows, too long a text, NaN and nested values are refused, and nothing is left behind."""
    monkeypatch.setattr(workbook_out, "ROWS", 2)
    for cells, message in (
        (["a"] * 3, "a sheet holds 2 rows"),
        (["a" * 40_000], "the column 'c' holds a text of 40,000 letters, and a cell 32,767"),
        ([float("nan")], "the column 'c' holds NaN or Infinity, which a workbook does not have"),
        ([[1]], "cannot hold the column 'c'"),
    ):
        with pytest.raises(es.ValidationError, match=message):
            write(pa.table({"c": cells}), tmp_path / "out.xlsx")
    assert not list(tmp_path.iterdir())


def test_a_workbook_goes_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Records come from a workbook, with dates as dates, and a lead list too; the answer is one, and a plan."""
    monkeypatch.chdir(tmp_path)
    created = dt.datetime(2026, 11, 16, 8)
    records = [["entityId", "field", "status", "createdAt", "dataFound"]]
    records += [[uid(n), "emails", "finished", created, n < 2] for n in range(3)]  # type: ignore[list-item]
    book(Path("records.xlsx"), {"R": records})
    book(Path("leads.xlsx"), {"Notes": [["x"]], "Leads": [HEAD, *([uid(n), f"=Lead {n}"] for n in range(4))]})
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load("records.xlsx").inserted == 3
        assert store.records(["createdAt"])["createdAt"][0].as_py() == created.replace(tzinfo=dt.UTC)
    where = ("--records", "records.xlsx", "--org", ORG, "--now", NOW, "--entity-id", "lead_id", "--fields", "emails")
    assert main(["lookup", "leads.xlsx", *where, "-o", "out.xlsx"]) == 2
    assert "Say which, or pass --sheet Notes" in capsys.readouterr().err
    assert main(["lookup", "leads.xlsx", *where, "--sheet", "Leads", "-o", "out.xlsx"]) == 0
    frame = read("out.xlsx")
    assert frame["status"].fillna("-").tolist() == ["finished"] * 3 + ["-"]
    assert main(["plan", "leads.xlsx", *where, "--sheet", "Leads", "-o", "plan.xlsx"]) == 0
    assert read("plan.xlsx")["action"].tolist() == ["have", "have", "no_data", "trigger"]
    capsys.readouterr()
    assert main(["lookup", "leads.xlsx", *where, "--sheet", "Leads", "-o", "out.xls"]) == 2
    assert "'out.xls' has no known ending to write" in capsys.readouterr().err.replace(str(tmp_path) + "/", "")


def test_ids_that_excel_has_made_numbers_of_are_named(tmp_path: Path):
    """1.23E+17, in a workbook or in the CSV that Excel saved, is refused with what has happened and what to do."""
    said = "is a number that Excel made of an id, whose last digits are lost: format the column as text, and fill in the ids anew"
    path = book(
        tmp_path / "in.xlsx", {"L": [["entityId", "field"], [123456789012345678, "emails"], [uid(0), "emails"]]}
    )
    (tmp_path / "in.csv").write_text(f"entityId,field\n1.23E+17,emails\n{uid(0)},emails\n")
    (tmp_path / "in.json").write_text(json.dumps([{"entityId": "1,23E+31", "field": "emails"}]))
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])
        digits = "'123456789012345700' is a number, not a UUID; where Excel made it of an id, format the column as text"
        with pytest.raises(es.ValidationError, match=digits):
            store.lookup(path)
        for name, value in (("in.csv", "1.23E+17"), ("in.json", "1,23E+31")):
            with pytest.raises(es.ValidationError, match=re.escape(f"entityId '{value}' {said}")):
                store.lookup(str(tmp_path / name))


def test_a_services_error_is_text_in_csv(tmp_path: Path):
    """What a service writes into ``error`` is no formula in CSV either; the caller's own columns stay as they were."""
    write(pa.table({"own": ["=1"], "error": ["=cmd()"], "r_error": ["<b>"]}), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == '"own","error","r_error"\n"=1","\'=cmd()","<b>"\n'
