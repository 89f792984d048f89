"""A CSV file: its encoding, delimiter and header, its cells as text, and the line of each fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from enrichstatus.errors import ValidationError
from enrichstatus.files.text import UTF8, blocks, encoding_of, shown, unreadable

#: What a row has to fit into.
_ROW = 1 << 24
#: What Arrow raises where it cannot read on.
_FAULTS = (pa.ArrowException, OSError, UnicodeError)
_LINE_END = re.compile(r"\r\n?|\n")
_SEPARATOR = re.compile(r'"?sep=([^\r\n])"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file: how it is read, and the names in its header."""

    path: str
    encoding: str
    delimiter: str
    #: lines above the header
    skip: int
    #: whether cells in quotes may hold lines that look like rows
    multiline: bool
    #: whether there is a header that is not even ended, in which Arrow finds none
    bare: bool
    names: list[str]

    @classmethod
    def at(cls, path: str, encoding: str | None, skip: int, multiline: bool) -> CsvFile:
        """Look at the first lines of a file."""
        encoding = encoding_of(path, encoding)
        text = blocks(path, encoding)
        lines, more = io.StringIO(next(text), newline=""), next(text, "")
        for _ in range(skip):
            if not lines.readline():
                break
        line = lines.readline()
        if separator := _SEPARATOR.fullmatch(line):  # what Excel obeys
            line, skip = lines.readline(), skip + 1
        while line and not line.strip("\r\n"):
            line, skip = lines.readline(), skip + 1
        unquoted = re.sub(r'"[^"]*"', "", line)
        sniffed = "\t" if ".tsv" in Path(path.lower()).suffixes else max(",;\t|", key=unquoted.count)
        delimiter = separator[1] if separator else sniffed
        if not delimiter.isascii():
            why = f"the delimiter {delimiter!r} is not one of ASCII. Take another, e.g. a semicolon."
            raise unreadable(path, skip, why)
        if "\0" in line:
            utf16 = ("encoding", "utf-16-le", "read it, if it is UTF-16")
            raise unreadable(path, skip + 1, "it holds NUL characters. Save it as UTF-8", instead=utf16)
        if not line:
            below = ", which should stand below the lines that skip leaves out" if skip else ""
            raise unreadable(path, skip + 1, f"there is no header{below}.")
        bare = not (more or line.endswith(("\r", "\n")))
        names = next(csv.reader([line], delimiter=delimiter)) if bare else []
        file = cls(path, encoding, delimiter, skip, multiline, bare, names)
        if not bare:
            try:
                with file._open() as reader:
                    file = replace(file, names=reader.schema.names)
            except _FAULTS as error:
                raise file._fault(error) from error
        if file._swallows(file.names, header=True):
            raise file._fault()
        return file

    def _open(self) -> pacsv.CSVStreamingReader:
        encoding = "utf8" if self.encoding == UTF8 else self.encoding
        read = pacsv.ReadOptions(block_size=_ROW, encoding=encoding, skip_rows=self.skip)
        # an empty line is a blank cell where there is one column only
        blank = len(self.names) != 1
        parse = pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, ignore_empty_lines=blank)
        types, nulls = dict.fromkeys(self.names, pa.string()), {"null_values": [""], "strings_can_be_null": True}
        convert = pacsv.ConvertOptions(column_types=types, quoted_strings_can_be_null=True, **nulls)
        return pacsv.open_csv(self.path, read_options=read, parse_options=parse, convert_options=convert)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the cells; what a quote swallows, and rows that are too short or too long, are refused."""
        quoted = self._check_quotes()
        if self.bare:
            return
        try:
            for batch in self._open():
                if quoted and self._swallows_some(batch):
                    raise self._fault()
                yield batch
        except _FAULTS as error:
            raise self._fault(error) from error

    def _check_quotes(self) -> bool:
        """Refuse a quote that opens a cell and is not closed at its end, as a strict csv.reader does; gives whether there are quotes."""
        ends = re.escape(self.delimiter) + r"\r\n"
        # cells in quotes, and quotes within cells without, up to the first that is neither
        fine = re.compile(rf'(?:[^"]*+(?:(?<=[{ends}])"[^"]*+(?:""[^"]*+)*+"(?=[{ends}])|(?<![{ends}])"))*+[^"]*+')
        rest, line, quoted = "\n", 0, False
        for number, block in enumerate(blocks(self.path, self.encoding)):
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
                why = f"a quote opens the cell {shown(rest[1:])}, and none closes it at its end. {_QUOTES}"
                raise unreadable(self.path, line + 1, why)
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
        """Whether a cell of several lines looks like rows that stand between two stray quotes, which break no rule of CSV."""
        return not self.multiline and any(
            _LINE_END.search(cell) and self._look_like_rows(cells, place, header=header)
            for place, cell in enumerate(cells)
        )

    def _look_like_rows(self, cells: Sequence[str], place: int, *, header: bool) -> bool:
        """Whether the lines of a cell, with what stands before and after it, are rows by themselves.

        They are where all have as many cells, none of which begins with a space, as text has after a comma; or where some have, and the
        same place holds an id, a date or a number.
        """
        lines = [line.split(self.delimiter) for line in _LINE_END.split(cells[place])]
        lines[0][:0], lines[-1][len(lines[-1]) :] = cells[:place], cells[place + 1 :]
        if header:
            return len(lines[0]) > 1 and len(set(map(len, lines))) == 1
        rows = [line for line in lines if len(line) == len(cells)]
        if len(lines[0]) != len(cells) or len(rows) < 2:
            return False
        spaces = [any(cell.startswith(" ") for cell in line[1:]) for line in (self.names, *rows)]
        whole = len(cells) > 1 and all(len(line) == len(cells) or line == [""] for line in lines)
        alike = any(
            one and one == two for row in rows[1:] for one, two in zip(*map(_shapes, (rows[0], row)), strict=True)
        )
        return alike or (whole and (spaces[0] or not any(spaces)))

    def _fault(self, error: Exception | None = None) -> ValidationError:
        """Find the line of what is wrong, with Python's csv."""
        for _ in blocks(self.path, self.encoding):
            pass  # which names what cannot be decoded
        above = self.skip
        limit = csv.field_size_limit(1 << 30)
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
                    if sum(map(len, cells)) > _ROW // 2:
                        return unreadable(self.path, start, "the row is longer than 8 million letters. Shorten it.")
                    row = shown(self.delimiter.join(cells))
                    if header and len(cells) != len(header):
                        why = (
                            f"it has {len(cells)} cells, the header (line {started}) has {len(header)}: {row}. Leave out lines above "
                            "the header with skip= (--skip), remove lines that are not rows, and write cells with a delimiter in quotes."
                        )
                        return unreadable(self.path, start, why)
                    if self._swallows(cells, header=not header):
                        why = f"a cell in quotes holds whole rows, {row}. {_QUOTES}"
                        instead = ("multiline", True, "read such a cell as it stands")
                        return unreadable(self.path, f"{start} to {line}", why, instead=instead)
                    if not header:
                        header, started = cells, start
            except csv.Error as fault:
                error = fault
            finally:
                csv.field_size_limit(limit)
        return unreadable(self.path, line + 1, f"{error}.")


_QUOTES = "Write a quote that belongs to a cell twice, and the cell in quotes; or take it out."


def _shapes(cells: Sequence[str]) -> list[str]:
    """Give what ids, dates and numbers of one kind have in common; without a digit, nothing."""
    return [re.sub(r"\w+", "9", cell.strip()) if re.search(r"\d", cell) else "" for cell in cells]
