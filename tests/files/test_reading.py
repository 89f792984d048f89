"""Files in: the same rows and cells as Python's csv and json, or a refusal that names the file and the line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.files.reading.read import Files
from tests.support.cases import cases, crossed
from tests.support.factory import ORG, record, uid

DAMAGE = [
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    " ",
    '",',
    ',"',
    '"\n',
    "é",
    "'",
    ";",
    "[",
    "]",
    "{",
    "}",
    ":",
    "\\",
    "1",
    "null",
    "\t",
]
CON = duckdb.connect()


def mutated(text: str, dice: random.Random) -> str:
    """Damage a text in one to three places: something is put in, taken out, repeated, or the end is cut off."""
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(text) + 1)
        end = min(len(text), place + dice.randint(1, 6))
        match dice.randrange(5):
            case 0 | 1:
                text = text[:place] + dice.choice(DAMAGE) + text[place:]
            case 2:
                text = text[:place] + text[end:]
            case 3:
                text = text[:end] + text[place:]
            case _:
                text = text[:place] if dice.random() < 0.3 else text[:place] + dice.choice(DAMAGE) + text[end:]
    return text


def rows_of(path: Path) -> tuple[list[str], list[list[str | None]]]:
    """Read the names and the cells of a file as this package does."""
    given = Files(path, con=CON)
    table = given.stream(CON.cursor()).read_all()
    return given.names, [list(row.values()) for row in table.to_pylist()]


def rows_or_refusal(path: Path) -> tuple[list[str], list[list[str | None]]] | str:
    """Read a file, or say why it is refused."""
    try:
        return rows_of(path)
    except es.ValidationError as error:
        return str(error)


def csv_file(dice: random.Random) -> str:
    rows = [["id", "name", "note"][: dice.randint(1, 3)]]
    words = ["Ada", "", "a, b", 'say "hi"', "two\nlines", "00123", " x ", "é", "5' pipe"]
    rows += [
        [f"{row}-{dice.randrange(10**6)}", *dice.choices(words, k=len(rows[0]) - 1)]
        for row in range(dice.randint(0, 6))
    ]
    made = io.StringIO()
    csv.writer(made, lineterminator=dice.choice(["\n", "\r\n"])).writerows(rows)
    return made.getvalue()


def by_csv(text: str) -> list[list[str | None]]:
    """Read a text as Python's csv does, with the delimiter that we took; empty cells are null, and empty lines no rows of several cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    rows = list(reader)
    header = next(row for row in rows if row)
    below = rows[rows.index(header) + 1 :]
    kept = [row or [""] for row in below if row or len(header) == 1]
    return [[cell or None for cell in row] for row in kept]


def delimiter_of(text: str) -> str:
    line = next(line for line in re.split(r"\r\n?|\n", text) if line)
    unquoted = re.sub(r'"[^"]*"', "", line)
    return max(",;\t|", key=unquoted.count)


def test_a_damaged_csv_gives_the_cells_of_pythons_csv_or_names_file_and_line(tmp_path: Path):
    """Whatever was put into a CSV file or taken out of it: no row is merged, none is lost, and no cell is another."""
    dice = random.Random(14)
    path, refused = tmp_path / "l.csv", 0
    count = cases(400, 50_000)
    for _ in range(count):
        text = mutated(csv_file(dice), dice)
        path.write_bytes(text.encode())
        if not text.strip("\r\n"):
            continue
        if isinstance(read := rows_or_refusal(path), str):
            assert re.search(r"l\.csv', line \d+", read), (text, read)
            refused += 1
        else:
            assert read[1] == by_csv(text), text
    assert 0 < refused < count


def json_file(dice: random.Random) -> tuple[str, str]:
    members = ["id", "ID", "", "a b", "x.y", "/", "~", "né"]
    values = [1, -2.5, "x", "", None, True, [1, 2], {"a": [None]}, 2**70, 'é\n"', "a, ]"]
    rows = [
        {name: dice.choice(values) for name in dice.sample(members, dice.randint(0, 6))}
        for _ in range(dice.randint(0, 5))
    ]
    if dice.random() < 0.5:
        return "l.json", json.dumps(rows, indent=dice.choice([None, 1]), ensure_ascii=dice.random() < 0.5)
    return "l.ndjson", "".join(json.dumps(row) + "\n" for row in rows) or "{}\n"


def by_json(text: str) -> list[dict[str, object]] | None:
    """Read objects as Python's json does, in an array or one after the other; None where they are not."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    decoder, values, place = json.JSONDecoder(object_pairs_hook=once), [], 0
    text = text.strip(" \t\r\n")
    try:
        if text.startswith("["):
            values = decoder.decode(text)
        while text and not text.startswith("[") and place < len(text):
            value, place = decoder.raw_decode(text, place)
            values.append(value)
            place += len(text[place:]) - len(text[place:].lstrip(" \t\r\n"))
    except ValueError:
        return None
    return values if all(isinstance(value, dict) for value in values) else None


def same(ours: object, theirs: object) -> bool:
    """Compare a value as it is, or as the JSON that a column of several types holds."""
    try:
        return ours == theirs or (isinstance(ours, str) and bool(json.loads(ours) == theirs))
    except ValueError:
        return False


def test_a_damaged_json_gives_the_cells_of_pythons_json_or_names_file_and_line(tmp_path: Path):
    """Members that are rare, empty or differ in case alone keep their cells; what json refuses is refused, with its line."""
    dice = random.Random(14)
    refused, count = 0, cases(100, 50_000)
    for number in range(count):
        name, text = json_file(dice)
        text = text if number % 4 == 0 else mutated(text, dice)
        path = tmp_path / name
        path.write_bytes(text.encode())
        expected = by_json(text)
        if not text:
            continue
        if isinstance(read := rows_or_refusal(path), str):
            assert expected is None or not text.strip(), (text, read)
            assert re.search(r"l\.(nd)?json', line \d+", read), (text, read)
            refused += 1
            continue
        assert expected is not None, text
        names, rows = read
        if not names:  # objects without members, or none
            assert not any(expected)
            continue
        assert len(rows) == len(expected), text
        for row, values in zip(rows, expected, strict=True):
            assert all(same(one, values.get(name)) for one, name in zip(row, names, strict=True)), text
            assert set(values) <= set(names), text
    assert 0 < refused < count


@pytest.fixture
def store() -> Iterator[es.EnrichmentStore]:
    with es.EnrichmentStore(org_id=ORG) as made:
        made.load([record(n, status="finished", dataFound=True) for n in range(3)])
        yield made


@pytest.mark.parametrize(
    ("encoding", "ending"),
    crossed(
        ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"], ["csv", "json", "ndjson"]
    ),
)
def test_files_are_read_in_any_encoding(store: es.EnrichmentStore, tmp_path: Path, encoding: str, ending: str):
    """A byte order mark says how a file is encoded; without one it is said with encoding=."""
    rows = {
        "csv": f"lead_id,name\r\n{uid(0)},José\r\n",
        "json": json.dumps([{"lead_id": uid(0), "name": "José"}], ensure_ascii=False),
    }
    path = tmp_path / f"l.{ending}"
    path.write_bytes(rows["csv" if ending == "csv" else "json"].encode(encoding))
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    leads = es.tasks_from_leads(path, entity_id="lead_id", fields="emails", encoding=None if marked else encoding)
    assert store.lookup(leads)[["name", "status"]].to_numpy().tolist() == [["José", "finished"]]


def test_records_are_read_in_any_encoding(tmp_path: Path):
    """``load`` takes the same two options, also for records under lines of a report."""
    row = record(0, status="failed", error="Müller")
    text = f"Report\n\n{','.join(row)}\n{','.join('' if cell is None else str(cell) for cell in row.values())}\n"
    (tmp_path / "r.csv").write_bytes(text.encode("cp1252"))
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load(tmp_path / "r.csv", encoding="cp1252", skip=2).inserted == 1
        assert store.records(["error"])["error"].to_pylist() == ["Müller"]


@pytest.mark.parametrize(("encoding", "name"), [("shift_jis", "表予"), ("gbk", "张丽"), ("cp1251", "Анна")])
def test_names_of_the_east_are_read(tmp_path: Path, encoding: str, name: str):
    """Where a byte of a character is that of a delimiter, too."""
    path = tmp_path / "l.csv"
    path.write_bytes(f"lead_id,name\n{uid(0)},{name}\n".encode(encoding))
    leads = es.tasks_from_leads(path, entity_id="lead_id", fields="emails", encoding=encoding)
    assert leads["name"].tolist() == [name]
    with pytest.raises(es.ValidationError, match=r"l\.csv', line 2, cannot be read: .*encoding="):
        es.tasks_from_leads(path, entity_id="lead_id")


@pytest.mark.parametrize(
    "given",
    [
        {"encoding": "hex"},
        {"encoding": "none-such"},
        {"encoding": "idna"},
        {"encoding": "\ud800"},
        {"skip": -1},
        {"skip": "1"},
        {"skip": True},
        {"multiline": 1},
    ],
)
def test_options_of_reading_are_checked(tmp_path: Path, given: dict[str, object]):
    """An encoding that nobody knows, and what is not a number of lines, are refused; so are both for what is not a file."""
    (tmp_path / "l.csv").write_text("lead_id\n")
    with pytest.raises(es.ValidationError, match=f"{next(iter(given))}= is"):
        es.tasks_from_leads(tmp_path / "l.csv", entity_id="lead_id", **given)
    leads = [{"lead_id": uid(0)}]
    for what in (leads, pd.DataFrame(leads), pl.DataFrame(leads), pa.Table.from_pylist(leads)):
        with pytest.raises(es.ValidationError, match="encoding=, skip=, multiline= and sheet= say how files are read"):
            es.tasks_from_leads(what, entity_id="lead_id", skip=1)


ABOVE = {
    "notes": (f'Notes:\n"When exporting, some, are missing."\n\nFirst Name,lead_id\nA,{uid(0)}\n', 3),
    "a title and its date": (f"Leads of May\r\n2026-05-01,,,\r\nlead_id,name\r\n{uid(0)},A\r\n", 2),
    "a separator": (f"sep=;\nlead_id;name\n{uid(0)};A\n", 0),
    "a separator in quotes": (f'"sep=|"\r\nlead_id|name\r\n{uid(0)}|A\r\n', 0),
    "blank lines": (f"\n\r\n\nlead_id,name\n{uid(0)},A\n", 0),
    "delimiters in a quoted name": (f'lead_id,"a;b;c"\n{uid(0)},A\n', 0),
}


@pytest.mark.parametrize("name", ABOVE)
def test_lines_above_the_header_are_left_out(store: es.EnrichmentStore, tmp_path: Path, name: str):
    """``skip=`` leaves them out, Excel's line ``sep=;`` is obeyed, and without it the error says which option helps."""
    text, skip = ABOVE[name]
    path = tmp_path / "l.csv"
    path.write_bytes(text.encode())
    tasks = es.tasks_from_leads(path, entity_id="lead_id", fields="emails", skip=skip)
    assert store.lookup(tasks)["status"].tolist() == ["finished"]
    if skip:
        with pytest.raises(es.ValidationError, match=r"l\.csv', line \d, cannot be read: .*skip="):
            es.tasks_from_leads(path, entity_id="lead_id")


LEAD = {"lead_id": uid(0), "name": "Ada"}
WRAPPED = {
    "data": json.dumps({"data": [LEAD], "meta": {"page": 1}}),
    "results": json.dumps({"count": 1, "next": None, "results": [LEAD]}, indent=1),
    "a page a line": json.dumps({"items": [LEAD], "has_more": False}) + "\n" + json.dumps({"items": []}),
    "Singer": "\n".join(map(json.dumps, [
        {"type": "SCHEMA", "stream": "leads", "schema": {}, "key_properties": ["lead_id"]},
        {"type": "RECORD", "stream": "leads", "record": LEAD, "time_extracted": "2026-01-01T00:00:00Z"},
        {"type": "STATE", "value": {"leads": 1}},
    ])),
    "Airbyte": "\n".join(map(json.dumps, [
        {"type": "LOG", "log": {"message": "x"}},
        {"type": "RECORD", "record": {"stream": "leads", "data": LEAD, "emitted_at": 1}},
    ])),
    "Airbyte's files": json.dumps({"_airbyte_ab_id": "x", "_airbyte_emitted_at": 1, "_airbyte_data": LEAD}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_rows_are_taken_out_of_their_envelope(tmp_path: Path, name: str):
    """Pages of an API, and messages of Singer and Airbyte, are read as the rows in them."""
    (tmp_path / "l.json").write_text(WRAPPED[name])
    leads = es.tasks_from_leads(tmp_path / "l.json", entity_id="lead_id", fields="emails")
    assert leads[["lead_id", "name"]].to_dict("records") == [LEAD]


def test_what_is_not_surely_an_envelope_is_read_as_it_stands(tmp_path: Path):
    """A row with a list of its own is a row; of two streams none is chosen."""
    rows = [LEAD | {"data": [{"a": 1}]}, LEAD | {"type": "RECORD", "record": {"a": 1}}]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    leads = es.tasks_from_leads(tmp_path / "l.json", entity_id="lead_id", fields="emails")
    assert leads["name"].tolist() == ["Ada", "Ada"]
    messages = [{"type": "RECORD", "stream": stream, "record": LEAD} for stream in ("leads", "deals")]
    (tmp_path / "l.ndjson").write_text("\n".join(map(json.dumps, messages)))
    with pytest.raises(es.ValidationError, match=r"l\.ndjson' holds records of several streams, deals, leads"):
        es.tasks_from_leads(tmp_path / "l.ndjson", entity_id="lead_id")


def test_two_stray_quotes_swallow_no_rows(tmp_path: Path):
    """A cell in quotes that holds whole rows is refused with its lines; one that holds an address of several lines is read.

    Blank lines are no rows above the header, and blank cells below the only one.
    """
    path = tmp_path / "l.csv"
    rows = [f"{uid(n)},{name}" for n, name in enumerate(["A", '"Bob', "C", 'D"', "E"])]
    path.write_text("\n".join(["lead_id,name", *rows, ""]))
    with pytest.raises(
        es.ValidationError, match=r"l\.csv', line 3 to 5, cannot be read: a cell in quotes holds whole rows"
    ):
        Files(path).stream(duckdb.connect()).read_all()
    path.write_text("\n\nlead_id\n\nx\n")
    assert rows_of(path) == (["lead_id"], [[None], ["x"]])
    path.write_text(f'lead_id,address,n\n{uid(0)},"5, Main St\nApt 4, 2nd floor\nRome",1\n')
    assert rows_of(path)[1] == [[uid(0), "5, Main St\nApt 4, 2nd floor\nRome", "1"]]


SWALLOWED = {
    "ids": f'lead_id,name\n{uid(0)},"Bob\n{uid(1)},Eve"\n',
    "e-mails": 'email,name\nada@x.com,"Bob\nbob@x.com,C\neve@x.com,D"\n',
    "names": 'name,city\nAda,"Rome\nBob,Paris"\n',
    "with a comma in quotes": 'name,city,n\n"Ada, B",Rome,"x\nBob,Paris,y"\n',
    "blank lines between": 'name,city\nAda,"Rome\n\nBob,Paris"\n',
    "another delimiter": 'name;city\r\nAda;"Rome\r\nBob;Paris"\r\n',
    "spaces after each comma": 'name, city\nAda,"Rome\nBob, Paris"\n',
    "a header": '"name,city\nAda,Rome"\n',
}
SEVERAL_LINES = {
    "prose": 'id,note\n1,"12 Main St\nRome, Italy"\n2,"Likes red, green\nand, perhaps, blue"\n',
    "a list": 'id,name,note\nA1,Ada,"- one, two\n- three, four"\n',
    "blank lines": 'id,note\n1,"a\n\n\nb"\n',
    "a name of two lines": '"first\nname",id\nAda,1\n',
    "one column": 'note\n"Dear Ada\nyours, Bob"\n',
}


@pytest.mark.parametrize("name", [*SWALLOWED, *SEVERAL_LINES])
def test_a_cell_of_several_lines_is_read_or_refused_with_the_option_that_reads_it(tmp_path: Path, name: str):
    """What may be rows between two stray quotes is refused; text of several lines is read; with ``multiline=`` all is as csv reads it."""
    text, path = (SWALLOWED | SEVERAL_LINES)[name], tmp_path / "l.csv"
    path.write_bytes(text.encode())
    if name in SWALLOWED:
        with pytest.raises(
            es.ValidationError, match=r"l\.csv', line \d+ to \d+, .* whole rows.*, or pass multiline=True to"
        ):
            rows_of(path)
    else:
        assert rows_of(path)[1] == by_csv(text)
    if name != "a header":  # there is nothing below it
        read = [list(row.values()) for row in Files(path, multiline=True).stream(CON.cursor()).read_all().to_pylist()]
        assert read == by_csv(text)


def test_commands_read_cells_of_several_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The refusal names ``--multiline``, and with it leads and records are read."""
    (tmp_path / "l.csv").write_text(f'lead_id,note\n{uid(0)},"a\n{uid(1)},b"\n')
    (tmp_path / "r.json").write_text(json.dumps([record(0, status="failed")]))
    lookup = ["lookup", str(tmp_path / "l.csv"), "--records", str(tmp_path / "r.json"), "--org", ORG]
    lookup += ["--entity-id", "lead_id", "--fields", "emails"]
    assert main(lookup) == 2
    assert "or pass --multiline to read such a cell as it stands" in capsys.readouterr().err
    assert main([*lookup, "--multiline"]) == 0


@pytest.mark.parametrize(
    "number", ["12345678901234567.89", "0.1234567890123456789", "123456789012345678901e-3", "1" * 5000]
)
def test_a_number_of_more_digits_than_are_kept_is_refused_with_its_line(tmp_path: Path, number: str):
    """JSON's other readers round it; what a double was written as, with however many digits, and a text of such digits are read."""
    path = tmp_path / "l.ndjson"
    for nested in (number, f'[{{"a": {number}}}]'):
        path.write_text(f'{{"a": 1}}\n{{"a": {nested}, "b": 1, }}\n'.replace(", }", "}"))
        if "." in number or "e" in number:
            with pytest.raises(
                es.ValidationError, match=r"l\.ndjson', line 2, .*more digits than can be kept.* in quotes"
            ):
                rows_of(path)
    exact = "0.1000000000000000055511151231257827"
    path.write_text(f'{{"a": {exact}, "b": "{number}", "c": 9007199254740993, "d": 1.50000000000000000000}}\n')
    assert rows_of(path)[1] == [[0.1, number, 2**53 + 1, 1.5]]
    path.write_text(f'{{"a": "\\ud83d", "b": {number}}}\n')  # Python reads it
    with pytest.raises(es.ValidationError, match=r"l\.ndjson', line 1"):
        rows_of(path)


LONG = "x" * 200_000
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a cell too few, after a long one": ("l.csv", f"a,b\n1,{LONG}\n2\n".encode(), "line 3, .*write cells with a delimiter in quotes"),
    "late in the file": ("l.csv", b"a,b\n" + b"1,2\n" * 600_000 + b"3\n", r"line 600002, .*--skip"),
    "a delimiter beyond ASCII": ("l.csv", "sep=é\naéb\n".encode(), "line 1, .*Take another"),
    "half a letter of UTF-16": ("l.csv", "a,b\n1,2\n".encode("utf-16") + b"\0", "line 3, .*encoding="),
    "a workbook": ("l.csv", b"PK\x03\x04\x14", "line 1, .*Give a workbook the ending .xlsx"),
    "compressed": ("l.csv", gzip.compress(b"a,b\n"), "line 1, .*Let .gz follow"),
    "not compressed": ("l.csv.gz", b"a,b\n1,2\n", "Fetch it anew, or unpack it"),
    "compressed and cut off": ("l.json.gz", gzip.compress(b'[{"a": 1}]')[:20], "Fetch it anew, or unpack it"),
    "JSON, cut off": ("l.json", b'[{"a": 1},\n{"b":', "line 2, .*cut off: fetch it anew"),
    "JSON, a comma too few": ("l.ndjson", b'{"a": 1}\n{"a": \n{"a": 1}\n"b": 1}', "line 4, .*begins in line 2.*Fix it there"),
    "no object": ("l.json", b'[{"a": 1},\nnull]', "line 2, .*Leave it out"),
    "a member twice": ("l.json", b'{"a": 1,\n"a": 2}', "line 1, .*Rename or drop one"),
    "an infinity": ("l.json", b'\xef\xbb\xbf{"a": 1e400}', "line 1, .*in quotes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_file_and_says_what_to_do(tmp_path: Path, name: str):
    """Whatever is wrong and wherever it stands, in our words: no program's own, and no traceback."""
    file, data, words = REFUSED[name]
    (tmp_path / file).write_bytes(data)
    for read in (rows_of, lambda path: es.EnrichmentStore(org_id=ORG).load(path, columns={})):
        with pytest.raises(es.ValidationError, match=rf"{re.escape(file)}'.*{words}"):
            read(tmp_path / file)


def test_a_header_without_rows_need_not_end(tmp_path: Path):
    """A file of a header alone holds no rows, also where its line is not ended."""
    (tmp_path / "l.csv").write_text('lead_id,"a, b"')
    assert rows_of(tmp_path / "l.csv") == (["lead_id", "a, b"], [])


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path):
    """JSON can write half of a character, which is not text, in a name, a value or deep within: the line is named; whole ones are read."""
    for bad in ('"\\ud83d"', '"\\uDE00"', '{"a": ["\\uD83D x"]}', '"x", "\\ud83d": 1'):
        (tmp_path / "l.ndjson").write_text(f'{{"id": "\\ud83d\\ude00"}}\n{{"id": {bad}}}\n')
        with pytest.raises(es.ValidationError, match=r"l\.ndjson', line 2, cannot be read: half of a surrogate pair"):
            rows_of(tmp_path / "l.ndjson")
    (tmp_path / "l.ndjson").write_text('{"id": "\\ud83d\\ude00"}\n')
    assert rows_of(tmp_path / "l.ndjson")[1] == [["\U0001f600"]]


def test_commands_read_any_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """``--encoding`` reaches tasks and records, ``--skip`` tasks; a refusal names the option as the command line spells it."""
    leads, records = tmp_path / "l.csv", tmp_path / "r.csv"
    leads.write_bytes(f"Export\nlead_id,name\n{uid(0)},Zoë\n".encode("cp1252"))
    made = record(0, status="finished", dataFound="true", createdBy="Zoë")
    records.write_bytes(
        "\n".join([",".join(made), ",".join(str(cell or "") for cell in made.values())]).encode("cp1252")
    )
    where = [
        "--records",
        str(records),
        "--org",
        ORG,
        "--entity-id",
        "lead_id",
        "--fields",
        "emails",
        "--now",
        "2026-11-16T09:00:00Z",
    ]
    out = tmp_path / "o.json"
    columns = ["--columns", "status,createdBy", "-o", str(out)]
    assert main(["lookup", str(leads), *where, "--encoding", "cp1252", "--skip", "1", *columns]) == 0
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert (row["name"], row["status"], row["createdBy"]) == ("Zoë", "finished", "Zoë")
    for command in (
        ["lookup", str(leads), *where],
        ["serve", "--simulate", "--tasks", str(leads), "--entity-id", "lead_id"],
    ):
        capsys.readouterr()
        assert main([*command, "--skip", "1"]) == 2
        assert "or pass --encoding cp1252 to read what Windows calls ANSI" in capsys.readouterr().err
    assert main(["serve", "--simulate", "--skip", "1"]) == 2
    assert "--skip goes with --tasks" in capsys.readouterr().err


def test_a_refusal_of_a_file_says_what_is_the_matter(tmp_path: Path):
    """Wrappers that are not clear, empty lists, UTF-16 without a mark, more characters than Shift-JIS has, and exponents."""
    row = f"id,n\n{uid(0)},é\n"
    faults: list[tuple[str, bytes, str | None, str]] = [
        ("a.json", b"[]", None, "there are no leads: the list is empty"),
        ("b.json", b'{"data": []}', None, "there are no leads: the list is empty"),
        ("c.json", b'{"data": {"id": "x"}}', None, "c.json' is a wrapper around the rows"),
        ("d.json", b'{"data": [{"id": "x"}], "results": []}', None, "d.json' is a wrapper around the rows"),
        ("e.csv", row.encode("utf-16-le"), None, 'pass encoding="utf-16-le"'),
        ("f.csv", row.encode("utf-16-be"), None, 'pass encoding="utf-16-be"'),
        ("g.csv", row.replace("é", "①").encode("cp932"), "shift_jis", 'pass encoding="cp932"'),
        ("h.json", b'\xef\xbb\xbf[{"id": "x", "n": 1e400}]', None, "exponent is too great"),
        ("i.json", b'[{"id": "x", "n": 1.23456789012345678901}]', None, "more digits than can be kept"),
    ]
    for name, content, encoding, message in faults:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(es.ValidationError, match=message):
            es.tasks_from_leads(tmp_path / name, entity_id="id", encoding=encoding)


def test_a_parquet_file_that_cannot_be_read_is_named_with_a_remedy(tmp_path: Path):
    """Cut off, something else, encrypted, damaged in the middle: in our words, from a load, a lookup and a scan."""
    path = tmp_path / "r.parquet"
    pd.DataFrame([record(n) for n in range(300)]).to_parquet(path)
    whole = path.read_bytes()
    cut = "cut off, or it is not Parquet. Fetch it or write it anew"
    for data, words in {
        whole[:-3]: cut,
        whole[:5]: cut,
        b"entityId,field\nx,emails\n": cut,
        whole[:-8] + b"\xff\xff\xff\x7fPAR1": cut,
        b"PARE" + whole[4:-4] + b"PARE": "it is encrypted. Write it without encryption",
        whole[:2000] + b"\0" * 3000 + whole[5000:]: r"it is damaged \(.*\). Fetch it or write it anew",
    }.items():
        path.write_bytes(data)
        for read in (
            lambda: es.EnrichmentStore(org_id=ORG).load(path),
            lambda: es.EnrichmentStore(org_id=ORG).lookup(path),
            lambda: es.EnrichmentStore.scan(path, org_id=ORG).records(),
        ):
            with pytest.raises(es.EnrichStatusError, match=rf"cannot be read:.*{words}") as caught:
                read()
            assert "r.parquet'" in str(caught.value)
