"""An Excel workbook in: the one sheet that is meant, its cells as what they are; what cannot be read as one table is refused.

A column of numbers, dates or truth values stays one, whole numbers are whole, and anything mixed is text. What is empty is null, and an
error such as #N/A is that text (of an .xls it is null). Formulas give what they came to when the workbook was saved.
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
import zlib
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError, quoted, suggested
from enrichstatus.files.plain import hours
from enrichstatus.files.reading.old_workbook import BOUNDLESS, fault_of
from enrichstatus.files.text import FILE
from enrichstatus.schema import listed

#: Rows that become columns at once.
_BATCH = 1 << 16
#: Cells, and bytes of the unpacked workbook, that are read: more of either take gigabytes of memory.
_MOST_CELLS, _MOST_BYTES = 1 << 24, 1 << 31
#: Texts that several sheets may share.
_MOST_TEXTS = 1 << 26
#: A whole number up to here is written in plain digits, as many as Excel holds.
_WHOLE = 2.0**63
#: How a file begins that is a workbook of before 2007, or one with a password.
_OLD = b"\xd0\xcf\x11\xe0"
_CSV = "Save the sheet as CSV, and give that."
_KINDS = {
    str: pa.string(),
    bool: pa.bool_(),
    float: pa.float64(),
    int: pa.float64(),
    dt.date: pa.date32(),
    dt.datetime: pa.timestamp("us"),
    dt.time: pa.time64("us"),
    dt.timedelta: pa.duration("us"),
}
Objects: TypeAlias = npt.NDArray[np.object_]


def read_workbook(path: str, sheet: str | None = None, skip: int = 0) -> tuple[list[str], list[pa.ChunkedArray]]:
    """Read a sheet: the names in its header, as they stand there, and the columns below."""
    with _opened(path) as book:
        name = _chosen(path, book, sheet)
        where = f"{path!r}, sheet {name!r}"
        errors = _check_xml(path, name, where) if zipfile.is_zipfile(path) else {}
        cells = book.get_sheet_by_name(name)
        blank = [""] * cells.width
        above = islice(enumerate(cells.iter_rows() if cells.start else (), 1), skip, None)
        first, header = next(((number, row) for number, row in above if row != blank), (0, blank))
        if not first:
            below = " below the lines that skip leaves out" if skip else ""
            raise ValidationError(
                f"{where} cannot be read: there is no header{below}. Name the columns in its first row."
            )
        for (top, left), (bottom, right) in cells.merged_cell_ranges or ():
            if bottom >= first - 1:
                what = "the header has merged cells" if top == first - 1 else "cells are merged"
                raise ValidationError(
                    f"{where} cannot be read: {what}, "
                    f"{_letters(left)}{top + 1}:{_letters(right)}{bottom + 1}, of which the first alone holds the value. "
                    "Unmerge them, and fill in each; or leave out lines above the header with skip= (--skip)."
                )
        return _table(where, cells, first, [_text_of(cell) for cell in header], errors)


def _table(
    where: str, cells: Any, first: int, header: list[str], errors: dict[int, list[tuple[int, str]]]
) -> tuple[list[str], list[pa.ChunkedArray]]:
    """Make columns of the rows below row `first`."""
    blank = [""] * len(header)
    parts: list[list[pa.Array]] = [[] for _ in header]
    rows = islice(cells.iter_rows(), first, None)
    line = first
    while block := list(islice(rows, _BATCH)):
        if blank in block:
            line += block.index(blank) + 1
            raise ValidationError(
                f"{where} cannot be read: row {line} is empty, and more rows follow it, as of a second table. Delete empty rows, "
                "and give each table a sheet of its own."
            )
        for place, (part, column) in enumerate(zip(parts, zip(*block, strict=True), strict=True), cells.start[1]):
            wrong = [(row - line - 1, text) for row, text in errors.get(place, ()) if line < row <= line + len(block)]
            part.append(_column(column, wrong))
        line += len(block)
    columns = [_one_kind(part) for part in parts]
    gaps = [not name and column.null_count == len(column) for name, column in zip(header, columns, strict=True)]
    kept = [place for place, gap in enumerate(gaps) if not gap]
    if len(kept) < kept[-1] - kept[0] + 1:
        place = gaps.index(True, kept[0])
        raise ValidationError(
            f"{where} cannot be read: it holds two tables side by side, with "
            f"the empty column {_letters(cells.start[1] + place)} between. Delete "
            "the empty column, or give each table a sheet of its own."
        )
    return [header[place] for place in kept], [columns[place] for place in kept]


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise ValidationError(
            f'{path!r} is a workbook, which needs the extra "excel": pip install "enrichstatus[excel]".'
        ) from error
    try:
        with Path(path).open("rb") as file:
            start = file.read(8)
        if not start.startswith((b"PK\x03\x04", _OLD)):
            text = "It is a page, HTML" if start.lstrip().startswith(b"<") else "It may be text such as CSV"
            raise ValidationError(
                f"{path!r} is not a workbook, whatever its ending says. {text}: open it in Excel, and save it as .xlsx."
            )
        old = start.startswith(_OLD) and not _is_protected(path)
        if fault := fault_of(path) if old else BOUNDLESS if _is_boundless(path) else None:
            raise zipfile.BadZipFile(fault)
        # by its content: workbooks with the other's ending are common
        with Path(path).open("rb") as file, calamine.load_workbook(path if _is_protected(path) else file) as book:
            yield book
    except calamine.PasswordError as error:
        raise ValidationError(
            f"{path!r} is protected by a password. Open it in Excel, take the password away (File, Info, Protect Workbook), and save it."
        ) from error
    except BaseException as error:
        # what its parts raise where they are cut off or altered; a panic of Rust is no Exception
        broken = (calamine.CalamineError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError)
        if not isinstance(error, (*broken, LookupError, OSError, NotImplementedError, StopIteration)) and (
            type(error).__name__ != "PanicException"
        ):
            raise
        raise ValidationError(
            f"{path!r} cannot be read as a workbook: {str(error).rstrip('.')}. Fetch it anew, or open it in Excel and save it as .xlsx."
        ) from error


def _is_boundless(path: str) -> bool:
    """Whether a workbook says that it holds more texts than it can: memory is asked for that many, and in vain that ends the process."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.lower().endswith("sharedstrings.xml"):
                with archive.open(info) as xml:
                    counts = re.findall(rb"\buniqueCount\s*=\s*[\"'](\d+)", xml.read(1 << 16))
                if max(map(int, counts), default=0) > min(info.file_size, _MOST_TEXTS):
                    return True
    return False


def _is_protected(path: str) -> bool:
    """Whether a workbook lies encrypted in a container, which only its name tells from an old workbook."""
    with Path(path).open("rb") as file:
        return file.read(4) == _OLD and "EncryptedPackage".encode("utf-16-le") in file.read()


def _chosen(path: str, book: Any, sheet: str | None) -> Any:
    """Give the sheet that is named, or the only one that holds something."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum

    sheets = [one for one in book.sheets_metadata if one.typ == SheetTypeEnum.WorkSheet]
    names = [one.name for one in sheets]
    if sheet is not None:
        if sheet not in names:
            raise ValidationError(
                f"names {quoted(sheet)}, but {path!r} has the sheets {listed(names)}.{suggested(sheet, names)}",
                argument="sheet",
            )
        return sheet
    seen = [one.name for one in sheets if one.visible == SheetVisibleEnum.Visible] or names
    full = seen if len(seen) == 1 else [name for name in seen if _is_full(path, book, name)]
    if len(full) > 1:
        raise ValidationError(
            f"{path!r} has {len(full)} sheets that hold something, {listed(full)}. Say which.",
            instead=("sheet", full[0], "read that one"),
        )
    if not full:
        raise ValidationError(f"{path!r} is empty: no sheet of it holds anything.")
    return full[0]


def _is_full(path: str, book: Any, name: str) -> bool:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(_part(archive, name)) as xml:
            return any(re.search(rb"<(?:\w+:)?v\b|<(?:\w+:)?is\b", block) for block in _blocks(xml))
    return book.get_sheet_by_name(name).start is not None


def _part(archive: zipfile.ZipFile, name: str) -> str:
    """Find the file of a sheet within a workbook."""
    sheets = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    ids = {one.get("name"): key for one in sheets.iter() if one.tag.endswith("}sheet") for key in _ids(one)}
    links = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    target = next(one.get("Target", "") for one in links if one.get("Id") == ids.get(name))
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _ids(sheet: ElementTree.Element) -> list[str]:
    return [value for key, value in sheet.attrib.items() if key.endswith("}id")]


# cells that hold something: the letters and the number of their places
_LETTERS, _NUMBERS = (
    re.compile(rb"\br=[\"']" + part + rb"[\"'][^>/]*>") for part in (rb"([A-Z]+)\d+", rb"[A-Z]+(\d+)")
)
_ERROR = re.compile(
    rb"<(?:\w+:)?c\b(?=[^>]*\bt=[\"']e[\"'])[^>]*\br=[\"']([A-Z]+)(\d+)[\"'][^>]*>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v>([^<]*)<",
    re.DOTALL,
)
_FORMULA = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?"
    rb"\s*</(?:\w+:)?c>"
)


def _check_xml(path: str, name: str, where: str) -> dict[int, list[tuple[int, str]]]:
    """Refuse what would take the memory of the machine, and formulas that nobody has calculated, which would pass for empty cells.

    Gives by column, counted from 0, the rows, counted from 1, that hold an error, which would pass for empty too, and its text.
    """
    errors: dict[int, list[tuple[int, str]]] = {}
    with zipfile.ZipFile(path) as archive:
        if (size := sum(info.file_size for info in archive.infolist())) > _MOST_BYTES:
            raise ValidationError(f"{path!r} is too large to be read: unpacked it is {size / 1e9:.1f} GB. {_CSV}")
        with archive.open(_part(archive, name)) as xml:
            right, last = b"", 0
            for block in _blocks(xml):
                right = max({right, *_LETTERS.findall(block)}, key=_number)
                last = max(map(int, {b"%d" % last, *_NUMBERS.findall(block)}))
                for letters, row, text in _ERROR.findall(block) if b't="e"' in block or b"t='e'" in block else ():
                    errors.setdefault(_number(letters) - 1, []).append((int(row), text.decode()))
                if b"<f" not in block and b":f" not in block:
                    continue
                formulas = (one for one in _FORMULA.finditer(block) if not re.search(rb"\bt=.str", one[1]))
                if found := next(formulas, None):
                    place = re.search(rb'\br="(\w+)"', found[1])
                    raise ValidationError(
                        f"{where} cannot be read: the formula in {place[1].decode() if place else 'a cell'} was never calculated. "
                        "Open the workbook in Excel, save it, and give it again."
                    )
    if last * _number(right) > _MOST_CELLS:
        raise ValidationError(
            f"{where} is too large to be read: its cells go to {right.decode()}{last}. Delete cells that stand far from the table. {_CSV}"
        )
    return errors


def _number(letters: bytes) -> int:
    """Give the number of a column, counted from 1."""
    return reduce(lambda number, letter: number * 26 + letter - 64, letters, 0)


def _blocks(xml: Any) -> Iterator[bytes]:
    """Read the rows of a sheet, a few megabytes at a time, none of them cut."""
    rest = b""
    while block := xml.read(1 << 22):
        whole, row, rest = (rest + block).rpartition(b"<row ")
        if row:
            yield whole
        rest = row + rest
    yield rest


def _column(cells: tuple[Any, ...], errors: Sequence[tuple[int, str]]) -> pa.Array:
    """Make an array of some cells of a column: of their kind, or of text where they are of several; `errors` stand in some rows."""
    held = np.fromiter(cells, object, len(cells))
    held[held == ""] = None
    for row, text in errors:
        held[row] = text
    kinds = np.fromiter(map(type, held), object, len(held))
    found = set(kinds) - {type(None)}
    if found == {dt.date, dt.datetime}:
        return pa.array(held.astype("datetime64[us]"))
    if len({_KINDS[kind] for kind in found}) < 2:
        return pa.array(held, _KINDS[found.pop()] if found else pa.null(), from_pandas=True)
    texts: Objects = np.full(len(held), None, object)
    for kind in found:
        texts[kinds == kind] = _text(pa.array(held[kinds == kind], _KINDS[kind])).to_numpy(zero_copy_only=False)
    return pa.array(texts, pa.string())


def _one_kind(parts: list[pa.Array]) -> pa.ChunkedArray:
    """Join the parts of a column, as text where they are of several kinds; without any value it is text."""
    types = {part.type for part in parts} - {pa.null()}
    if types == {pa.date32(), pa.timestamp("us")}:
        kind = pa.timestamp("us")
    elif len(types) > 1:
        kind = pa.string()
        parts = [part if part.type == pa.null() else _text(part) for part in parts]
    else:
        kind = next(iter(types), pa.string())
    column = pa.chunked_array([part.cast(kind) for part in parts], kind)
    whole = pa.types.is_floating(kind) and pc.all(_is_whole(column)).as_py()
    return column.cast(pa.int64(), safe=False) if whole else column


def below(
    sheets: Iterable[tuple[Sequence[Hashable], list[pa.ChunkedArray], str]], places: Collection[Hashable]
) -> pa.Table:
    """Put sheets below one another: a column for each place, with what each sheet has there, and its path in `FILE`."""
    parts: list[list[pa.Array]] = [[] for _ in places]
    paths = []
    for found, columns, path in sheets:
        count = len(columns[0])
        held = dict(zip(found, columns, strict=True))
        for part, place in zip(parts, places, strict=True):
            part += held[place].chunks if place in held else [pa.nulls(count)]
        paths.append(pa.repeat(path, count))
    table = {str(number): _one_kind(part) for number, part in enumerate(parts)}
    return pa.table(table | {FILE: pa.chunked_array(paths, pa.string())})


def _is_whole(numbers: Any) -> Any:
    return pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), _WHOLE))


def _digits(numbers: Any) -> Any:
    """Turn whole numbers into such, with the digits that Excel shows: what it has rounded ends with zeros."""
    if (pc.max(pc.abs(numbers)).as_py() or 0) < 2**53:
        return numbers.cast(pa.int64())
    return numbers.cast(pa.string()).cast(pa.decimal128(38, 0)).cast(pa.int64())


def _text(values: Any) -> Any:
    """Turn values into text: numbers as Excel holds them, days and instants as ISO 8601."""
    if pa.types.is_floating(values.type):
        whole = _is_whole(values)
        return pc.if_else(whole, _digits(pc.if_else(whole, values, 0)).cast(pa.string()), values.cast(pa.string()))
    if pa.types.is_duration(values.type):
        return hours(values)
    return values.cast(pa.string())


def _text_of(cell: Any) -> str:
    """Give a cell of the header as text."""
    return cell if isinstance(cell, str) else _text(pa.array([cell], _KINDS[type(cell)]))[0].as_py()


def _letters(place: int) -> str:
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(65 + place % 26)
