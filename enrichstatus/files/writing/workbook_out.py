"""An Excel workbook out: one sheet, its header frozen and filtered, days and instants as such, ids as text, statuses in their colours.

Nothing is a formula or a link, whatever a cell begins with. Excel knows no zones: an instant is written as it is in UTC. What it would
round or has no date for (a whole number of more than 15 digits, a day before March 1900) is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.files.plain import as_text, plain
from enrichstatus.files.writing.json_out import refuse_not_finite
from enrichstatus.outcomes import LABELS, places
from enrichstatus.presentation import LONGEST

#: What a sheet holds: rows without the header, columns, and letters of a cell.
ROWS, COLUMNS, LETTERS = (1 << 20) - 1, 1 << 14, 32_767
#: From here on Excel rounds whole numbers.
_ROUNDED = 10**15
#: The day that Excel counts as 0; before March 1900 it counts a day that never was.
_ZERO, _FIRST = datetime(1899, 12, 30), datetime(1900, 3, 1)
_DAY = 86_400e6
_FORMATS = {"day": "yyyy-mm-dd", "instant": "yyyy-mm-dd hh:mm:ss", "time": "hh:mm:ss", "duration": "[h]:mm:ss"}
#: How much of a label's colour a cell has; the rest is white, so that black text stands out.
_TINT = 0.35


@contextmanager
def sheet(file: Any, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write a workbook of one sheet to a file that is open, piece by piece, in bounded memory."""
    xlsxwriter = writer()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        book = xlsxwriter.Workbook(file, {"constant_memory": True, "tmpdir": folder})
        page = book.add_worksheet("enrichstatus")
        stack.callback(page.row_data_fh.close)  # the rows until now, which stay open if they are not made a workbook
        formats = {name: book.add_format({"num_format": text}) for name, text in _FORMATS.items()}
        tints = np.array([book.add_format({"bg_color": _tint(outcome.light)}) for outcome in LABELS.values()], object)
        bold = book.add_format({"bold": True, "bottom": 1})
        for place, name in enumerate(schema.names):
            page.write_string(0, place, name, bold)
        page.freeze_panes(1, 0)
        count = 0

        def put(table: pa.Table) -> None:
            nonlocal count
            refuse_not_finite(table, "a workbook")
            if not count:
                for place, column in enumerate(table.columns):
                    page.set_column(place, place, _width(schema.names[place], column))
            if count + len(table) > ROWS:
                raise pa.ArrowInvalid(f"a sheet holds {ROWS:,} rows")
            coloured = _coloured(table)
            writes: list[Callable[..., Any]] = []
            columns: list[Sequence[Any]] = []
            for place, column in enumerate(table.columns):
                cells, kind = _cells(column, schema.names[place])
                columns.append(cells)
                found = coloured.get(place)
                columns.append([formats.get(kind)] * len(table) if found is None else tints[found].tolist())
                writes.append(page.write_boolean if kind == "truth" else page.write_string)
            number = page.write_number
            # XlsxWriter takes one cell after the other, row by row
            for line, row in enumerate(zip(*columns, strict=True), count + 1):
                for place, write in enumerate(writes):
                    cell = row[2 * place]
                    if cell is not None:
                        (number if type(cell) is float else write)(line, place, cell, row[2 * place + 1])
            count += len(table)

        yield put
        if schema.names:
            page.autofilter(0, 0, count, len(schema.names) - 1)
        book.close()


def writer() -> Any:
    """Import what writes workbooks."""
    try:
        import xlsxwriter
    except ImportError as error:
        raise ValidationError(
            'A workbook is written with the extra "excel": pip install "enrichstatus[excel]".'
        ) from error
    return xlsxwriter


def _cells(column: pa.ChunkedArray, name: str) -> tuple[list[Any], str]:
    """Give the cells of a column (numbers as floats, texts, truth values) and what kind they are."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        return column.to_pylist(), "truth"
    texts = plain(as_text(pa.table([column], names=[name]))).column(0)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        since = pc.microseconds_between(pa.scalar(_ZERO, pa.timestamp("us")), _in_utc(column.cast(kind)))
        days = pc.divide(since.cast(pa.float64(), safe=False), _DAY)
        first = (_FIRST - _ZERO).days
        return _either(days, pc.greater_equal(days, first), texts), "day" if pa.types.is_date(kind) else "instant"
    if pa.types.is_time(kind):
        ticks = column.cast(pa.time64("us"), safe=False).cast(pa.int64()).cast(pa.float64())
        return pc.divide(ticks, _DAY).to_pylist(), "time"
    if pa.types.is_duration(kind):
        ticks = column.cast(kind).cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)
        days = pc.divide(ticks, _DAY)
        return _either(days, pc.greater_equal(days, 0), texts), "duration"
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale <= 0):
        numbers = column.cast(kind).cast(pa.float64(), safe=False)
        return _either(numbers, pc.less(pc.abs(numbers), _ROUNDED), texts), "number"
    if pa.types.is_floating(kind) or (pa.types.is_decimal(kind) and kind.precision <= 15):
        return column.cast(kind).cast(pa.float64()).to_pylist(), "number"
    texts = texts.cast(pa.string())
    if (longest := pc.max(pc.utf8_length(texts)).as_py() or 0) > LETTERS:
        raise pa.ArrowInvalid(f"the column {name!r} holds a text of {longest:,} letters, and a cell {LETTERS:,}")
    return texts.to_pylist(), "text"


def _either(numbers: pa.ChunkedArray, good: pa.ChunkedArray, texts: pa.ChunkedArray) -> list[Any]:
    """Give numbers where they are good, and texts where not."""
    if pc.all(good).as_py() is not False:
        return list(numbers.to_pylist())
    cells = np.array(numbers.to_pylist(), object)
    bad = pc.fill_null(pc.invert(good), False).to_numpy()
    cells[bad] = texts.cast(pa.string()).filter(pa.array(bad)).to_pylist()
    return list(cells.tolist())


def _in_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give days and instants as instants in UTC, without a zone."""
    zoned = pa.types.is_timestamp(column.type) and column.type.tz
    return column.cast(pa.timestamp("us", "UTC" if zoned else None), safe=False).cast(pa.timestamp("us"))


def _coloured(table: pa.Table) -> dict[int, Any]:
    """Find the columns of statuses, by the ``dataFound`` that stands beside each, and the place of each row's label in `LABELS`."""
    found = {}
    for place, name in enumerate(table.column_names):
        beside = name.removesuffix("status") + "dataFound"
        if name.endswith("status") and table.column_names.count(beside) == 1 and table[beside].type == pa.bool_():
            found[place] = places(table.column(place).cast(pa.string()), table[beside])
    return found


def _tint(colour: str) -> str:
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * _TINT):02X}" for part in parts)


def _width(name: str, column: pa.ChunkedArray) -> int:
    """Give the letters that a column has room for, by its first rows; an id is seen whole."""
    texts = plain(as_text(pa.table([column.slice(0, 200)], names=[name]))).column(0).cast(pa.string())
    return min(max(len(name) + 3, (pc.max(pc.utf8_length(texts)).as_py() or 0) + 1), LONGEST + 2)
