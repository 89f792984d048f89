"""Files of text: encodings, what stands above a header, quotes that swallow rows, envelopes of JSON, and the line of each fault."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from enrichstatus.errors import ValidationError
from enrichstatus.schema import listed

#: The column that says which file a row came from.
FILE = "__enrichstatus_file__"
COMPRESSIONS = (".gz", ".zst")
_UTF8 = "utf-8-sig"  # with a byte order mark or without
_MARKS = {
    codecs.BOM_UTF8: _UTF8,
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: Bytes, or characters, that are read at once; and what a row has to fit into.
_BLOCK, _ROW = 1 << 22, 1 << 24
_LINE_END = re.compile(r"\r\n?|\n")
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


def check_options(encoding: str | None, skip: int) -> None:
    """Refuse an encoding that nobody knows, and what is not a number of lines."""
    try:
        "".encode(encoding or _UTF8)
    except (LookupError, TypeError):
        raise ValidationError(
            f"is a text encoding such as cp1252, latin-1, shift_jis or gbk, not {encoding!r}.", argument="encoding"
        ) from None
    if not isinstance(skip, int) or isinstance(skip, bool) or skip < 0:
        raise ValidationError(f"is the number of lines above the header, 0 or more, not {skip!r}.", argument="skip")


def is_utf8(path: str, encoding: str | None) -> bool:
    """Whether a file is UTF-8 without a byte order mark, which DuckDB reads."""
    with pa.input_stream(path, compression="detect") as stream:
        return not stream.read(3).startswith(codecs.BOM_UTF8) and _encoding(path, encoding) == _UTF8


def _encoding(path: str, given: str | None) -> str:
    """Tell how a file is encoded: by its mark, else as it was given, else UTF-8."""
    with pa.input_stream(path, compression="detect") as stream:
        start = stream.read(4)
    marked = (encoding for mark, encoding in _MARKS.items() if start.startswith(mark))
    return next(marked, _UTF8 if given is None or codecs.lookup(given).name == "utf-8" else given)


def _blocks(path: str, encoding: str) -> Iterator[str]:
    """Decode a file block by block."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, last = 1, False
    with pa.input_stream(path, compression="detect") as stream:
        while not last:
            block = stream.read(_BLOCK)
            last = not block
            try:
                text = decoder.decode(block, final=last)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, "replace")
                raise _unreadable(
                    path,
                    lines + before.count("\n"),
                    f"the byte 0x{error.object[error.start]:02X} is not {'UTF-8' if encoding == _UTF8 else encoding}. Save the "
                    "file as UTF-8.",
                    instead=("encoding", "cp1252", "read what Windows calls ANSI (others are latin-1, shift_jis, gbk)"),
                ) from None
            lines += text.count("\n")
            yield text


def _unreadable(path: str, lines: object, why: str, **more: Any) -> ValidationError:
    return ValidationError(f"{path!r}, line {lines}, cannot be read: {why}", **more)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: how it is read, and the names in its header."""

    path: str
    encoding: str
    delimiter: str
    #: lines above the header
    skip: int
    names: list[str]

    @classmethod
    def at(cls, path: str, encoding: str | None, skip: int) -> CsvFile:
        """Look at the first lines of a file."""
        encoding = _encoding(path, encoding)
        lines = io.StringIO(next(_blocks(path, encoding)), newline="")
        for _ in range(skip):
            lines.readline()
        line = lines.readline()
        if separator := _SEPARATOR.fullmatch(line):  # what Excel obeys
            line, skip = lines.readline(), skip + 1
        while line and not line.strip("\r\n"):
            line, skip = lines.readline(), skip + 1
        unquoted = re.sub(r'"[^"]*"', "", line)
        sniffed = "\t" if ".tsv" in Path(path.lower()).suffixes else max(",;\t|", key=unquoted.count)
        delimiter = separator[1] if separator else sniffed
        if "\0" in line:
            utf16 = ("encoding", "utf-16-le", "read it, if it is UTF-16")
            raise _unreadable(path, skip + 1, "it holds NUL characters. Save it as UTF-8", instead=utf16)
        if not line:
            raise _unreadable(
                path,
                skip + 1,
                "there is no header" + (", which should stand below the lines that skip leaves out." if skip else "."),
            )
        file = cls(path, encoding, delimiter, skip, [])
        try:
            with file._open() as reader:
                names = reader.schema.names
        except pa.ArrowException as error:
            raise file._fault(error) from error
        file = cls(path, encoding, delimiter, skip, names)
        if file._swallows(names, header=True):
            raise file._fault()
        return file

    def _open(self) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            self.path,
            read_options=pacsv.ReadOptions(
                block_size=_ROW, encoding="utf8" if self.encoding == _UTF8 else self.encoding, skip_rows=self.skip
            ),
            # an empty line is a blank cell where there is one column only
            parse_options=pacsv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=True, ignore_empty_lines=len(self.names) != 1
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the cells; what a quote swallows, and rows that are too short or too long, are refused."""
        quoted = self._check_quotes()
        try:
            for batch in self._open():
                if quoted and self._swallows_some(batch):
                    raise self._fault()
                yield batch
        except pa.ArrowException as error:
            raise self._fault(error) from error

    def _check_quotes(self) -> bool:
        """Refuse a quote that opens a cell and is not closed at its end, as a strict csv.reader does; gives whether there are quotes."""
        ends = re.escape(self.delimiter) + r"\r\n"
        # cells in quotes, and quotes within cells without, up to the first that is neither
        fine = re.compile(rf'(?:[^"]*+(?:(?<=[{ends}])"[^"]*+(?:""[^"]*+)*+"(?=[{ends}])|(?<![{ends}])"))*+[^"]*+')
        rest, line, quoted = "\n", 0, False
        for number, block in enumerate(_blocks(self.path, self.encoding)):
            if not number:
                table = io.StringIO(block, newline="")
                line = sum(bool(table.readline()) for _ in range(self.skip))
                block = table.read()
            quoted = quoted or '"' in block
            text = rest + (block or "\n")
            if not quoted:
                line, rest = line + text.count("\n", 1), text[-1]
                continue
            end = fine.match(text, 1).end()  # type: ignore[union-attr]  # it matches nothing, too
            line += text.count("\n", 1, end)
            rest = text[end - 1 :]
            if len(rest) > 1 and (not block or len(rest) > _ROW):
                raise _unreadable(
                    self.path,
                    line + 1,
                    f"a quote opens the cell {_shown(rest[1:])}, and none closes it at its end. {_QUOTES}",
                )
        return quoted

    def _swallows_some(self, batch: pa.RecordBatch) -> bool:
        """Whether a cell in quotes has swallowed rows: only those of several lines, with delimiters enough, are looked at."""
        cells = [pc.fill_null(column, "") for column in batch.columns]
        rows = pc.binary_join_element_wise(*cells, self.delimiter)
        several = pc.match_substring_regex(rows, r"[\r\n]")
        enough = pc.greater_equal(pc.count_substring(rows, self.delimiter), 2 * (len(cells) - 1))
        found = pa.table(cells, names=list(map(str, range(len(cells))))).filter(pc.and_(several, enough))
        return any(self._swallows(list(row.values())) for row in found.to_pylist())

    def _swallows(self, cells: Sequence[str], *, header: bool = False) -> bool:
        """Whether the lines of a row are rows by themselves: as many cells, and an id, a date or a number at the same place.

        Two stray quotes make one cell of what lies between them, and no rule of CSV is broken.
        """
        lines = [line.split(self.delimiter) for line in _LINE_END.split(self.delimiter.join(cells))]
        rows = [list(map(_shape, line)) for line in lines if len(line) == len(cells)]
        if len(lines[0]) < len(cells) or len(rows) < 2:
            return False
        if header:
            return len(cells) > 1
        return any(one and one == two for row in rows[1:] for one, two in zip(rows[0], row, strict=True))

    def _fault(self, error: Exception | None = None) -> ValidationError:
        """Find the line of what is wrong, with Python's csv."""
        above = self.skip
        with io.TextIOWrapper(pa.input_stream(self.path, compression="detect"), self.encoding, newline="") as text:
            for _ in range(above):
                text.readline()
            rows = csv.reader(text, delimiter=self.delimiter)
            header: list[str] = []
            line = started = above
            try:
                for cells in rows:
                    start, line = line + 1, above + rows.line_num
                    if not cells:
                        continue
                    if header and len(cells) != len(header):
                        return _unreadable(
                            self.path,
                            start,
                            f"it has {len(cells)} cells, the header (line {started}) has {len(header)}: "
                            f"{_shown(self.delimiter.join(cells))}. Leave out lines above the header with skip= (--skip), remove lines "
                            "that are not rows, and write cells with a delimiter in quotes.",
                        )
                    if self._swallows(cells, header=not header):
                        shown = _shown(self.delimiter.join(cells))
                        return _unreadable(
                            self.path, f"{start} to {line}", f"a cell in quotes holds whole rows, {shown}. {_QUOTES}"
                        )
                    if not header:
                        header, started = cells, start
            except csv.Error as fault:
                error = fault
        return _unreadable(self.path, line + 1, f"{error}.")


_QUOTES = "Write a quote that belongs to a cell twice, and the cell in quotes; or take it out."


def _shape(cell: str) -> str:
    """Give what ids, dates and numbers of one kind have in common; without a digit, nothing."""
    return re.sub(r"\w+", "9", cell.strip()) if re.search(r"\d", cell) else ""


def _shown(text: str) -> str:
    text = text[:200].strip().partition("\n")[0].strip()
    return repr(text[:60] + ("…" if len(text) > 60 else ""))


def array_ends(path: str) -> bool:
    """Whether a JSON array that begins also ends, without a comma before; DuckDB would not notice. A compressed file is read whole."""
    with pa.input_stream(path, compression="detect") as stream:
        start = stream.read(1 << 16)
        if Path(path).suffix.lower() in COMPRESSIONS:
            last = start
            while block := stream.read(_BLOCK):
                last = (last + block)[-(1 << 16) :]
        else:
            stream.seek(max(0, os.path.getsize(path) - (1 << 16)))
            last = stream.read()
    return not start.lstrip().startswith(b"[") or last.rstrip().endswith(b"]")


#: Members that hold the rows of an envelope, those that may stand beside them, and those of messages of Singer and Airbyte.
_ROWS = ("data", "results", "records", "items", "value", "rows")
_BESIDE = re.compile(
    r"meta|metadata|_?links|paging|pagination|next|previous|prev|first|last|count|total|total_?count|total_?size|page|pages|page_?size|"
    r"per_page|limit|offset|cursor|next_?cursor|has_?more|success|status|ok|errors?|message|object|url|version|took|done|"
    r"next_?records_?url|request_?id|@odata\.\w+",
    re.IGNORECASE,
)
_MESSAGE = re.compile(
    "type|stream|record|schema|key_properties|bookmark_properties|value|version|time_extracted|state|log|trace|catalog|spec|control|"
    "connectionStatus|namespace"
)
_TYPE = re.compile("RECORD|SCHEMA|STATE|ACTIVATE_VERSION|BATCH|LOG|TRACE|CATALOG|SPEC|CONTROL|CONNECTION_STATUS")
_AIRBYTE = "_airbyte_data"


def may_be_wrapped(members: Sequence[str]) -> bool:
    """Whether objects with these members may be envelopes of the rows."""
    page = any(name in _ROWS for name in members) and all(name in _ROWS or _BESIDE.fullmatch(name) for name in members)
    message = {"type", "record"} <= set(members) and all(map(_MESSAGE.fullmatch, members))
    return page or message or _AIRBYTE in members


def _unwrapped(path: str, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the rows out of their envelopes, where all are envelopes of one kind."""
    members = list(dict.fromkeys(member for value in values for member in value))
    if not may_be_wrapped(members):
        return values
    inner: list[Any]
    if _AIRBYTE in members:
        inner = [value.get(_AIRBYTE) for value in values]
        inner = [json.loads(one) if isinstance(one, str) else one for one in inner]
    elif "record" in members:
        if not all(_TYPE.fullmatch(str(value.get("type"))) for value in values):
            return values
        messages = [value for value in values if value["type"] == "RECORD"]
        inner = [message.get("record") for message in messages]
        if all(
            isinstance(one, dict) and isinstance(one.get("data"), dict) and "stream" in one for one in inner
        ):  # Airbyte
            messages, inner = inner, [one["data"] for one in inner]
        if len(streams := sorted({str(message.get("stream")) for message in messages})) > 1:
            raise ValidationError(f"{path!r} holds records of several streams, {listed(streams)}; keep those of one.")
    else:
        name, *more = [name for name in members if name in _ROWS]
        lists = [value.get(name) for value in values]
        if more or not all(isinstance(rows, list) for rows in lists):
            return values
        inner = [row for rows in lists for row in rows or ()]
    return inner if all(isinstance(one, dict) for one in inner) else values


class _Twice(ValueError):
    """A member stands twice in an object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return made


_SPACE = re.compile(r"[ \t\r\n]*")


def objects(path: str, encoding: str | None) -> list[dict[str, Any]]:
    """Read the objects of a JSON file, in an array or one after the other, with Python, which says where something is wrong."""
    text = "".join(_blocks(path, _encoding(path, encoding)))
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    values = []

    def after(place: int) -> int:
        return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too

    def line(place: int) -> int:
        return text.count("\n", 0, place) + 1

    place = start = after(0)
    array = text.startswith("[", place)
    try:
        if array:
            place = after(place + 1)
        more = not (array and text.startswith("]", place))
        while more and (array or place < len(text)):
            start = place
            value, place = decoder.raw_decode(text, place)
            if not isinstance(value, dict):
                raise _unreadable(path, line(start), f"{_shown(text[start:])} is not a JSON object, as rows are.")
            if r"\ud" in text[start:place].lower():
                json.dumps(value, ensure_ascii=False).encode()
            values.append(value)
            place = after(place)
            if array:
                more = text.startswith(",", place)
                if not more and not text.startswith("]", place):
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
                place = after(place + 1) if more else place
        if array and after(place + 1) < len(text):
            raise json.JSONDecodeError("Extra data", text, after(place + 1))
    except json.JSONDecodeError as error:
        cut = " The file is cut off." if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else ""
        raise _unreadable(path, error.lineno, f"{error.msg} (column {error.colno}).{cut}") from None
    except _Twice as error:
        raise _unreadable(path, line(start), f"the member {str(error)!r} stands twice in one object.") from None
    except UnicodeEncodeError:
        raise _unreadable(
            path, line(start), "half of a surrogate pair is not text; write the character in full."
        ) from None
    except RecursionError:
        raise _unreadable(path, line(start), "its values are nested too deeply.") from None
    return _unwrapped(path, values)


def as_table(path: str, values: list[dict[str, Any]]) -> pa.Table:
    """Give objects to DuckDB as text, with their file."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    return pa.table({"json": pa.array(texts, pa.string()), FILE: pa.repeat(path, len(texts))})
