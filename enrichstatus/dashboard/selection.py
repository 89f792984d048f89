"""Rows chosen from a dashboard: by what became of them, by field and by a text in them; sorted, and page by page."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.dashboard.html import mark
from enrichstatus.errors import ValidationError, quoted
from enrichstatus.files.writing import write as writing
from enrichstatus.lookup.arguments import choice, is_text
from enrichstatus.lookup.lazy import lazy
from enrichstatus.outcomes import LABELS
from enrichstatus.polling.update import Update
from enrichstatus.presentation import label as in_words
from enrichstatus.presentation import many
from enrichstatus.schema import KEY

Rows = npt.NDArray[np.int64]

#: Rows of a page, and of the caller's columns how many are shown.
PAGE, _MOST = 20, 8
#: Stands between two texts of a row that are searched as one.
_BETWEEN = "\x1f"


@dataclass(frozen=True)
class Column:
    """A column that is shown: of the caller's frame, or our own of that name."""

    name: Any
    ours: bool = False


#: What became of a row, and the service's word on what went wrong.
OUTCOME, ERROR = Column("outcome", ours=True), Column("error", ours=True)


@dataclass(frozen=True)
class Choice:
    """Which rows are shown, in which order, and which page of them."""

    #: what became of them, and their field; None is any
    label: str | None = None
    field: str | None = None
    #: a text that is somewhere in the row, in whatever case
    search: str = ""
    #: the number of the column of the table that they are sorted by
    sort: int | None = None
    descending: bool = False
    page: int = 0


class Table:
    """The rows of a poll, as a person looks through them. What does not change while it polls is read once."""

    def __init__(self, update: Update):
        self._tracker = update.tracker
        self._frame = self.frame_of = update.tracker.frame
        self._newest: tuple[Update, Choice, Rows] | None = None

    def check(self, chosen: Choice) -> Choice:
        """Refuse what there is not."""
        if chosen.label is not None:
            choice("outcome", chosen.label, tuple(LABELS))
        if chosen.field is not None:
            choice("field", chosen.field, self._tracker.fields)
        if not is_text(chosen.search):
            raise ValidationError(f"is text, not {quoted(chosen.search)}.", argument="search")
        return chosen

    def rows(self, update: Update, chosen: Choice) -> Rows:
        """Give the rows that are chosen, by position, in their order."""
        key = Choice(chosen.label, chosen.field, chosen.search, chosen.sort, chosen.descending)
        if self._newest is None or self._newest[0] is not update or self._newest[1] != key:
            self._newest = (update, key, self._find(update, key))
        return self._newest[2]

    def _find(self, update: Update, chosen: Choice) -> Rows:
        known = update.tracker
        which = np.ones(update.total, dtype=bool)
        if chosen.label is not None:
            which &= update.labels() == list(LABELS).index(chosen.label)
        if chosen.field is not None:
            which &= np.append(known.field, -1)[known.places] == known.fields.index(chosen.field)
        if chosen.search:
            text = chosen.search.lower()
            found = pc.match_substring(self._texts, text)
            found = pc.or_(found, pc.match_substring(pc.utf8_lower(_errors(update)), text).fill_null(False))
            which &= np.asarray(found)
        if chosen.sort is None or chosen.sort >= len(self.columns(update)):
            return np.flatnonzero(which)
        column = self.columns(update)[chosen.sort]
        order = _order(self._values(update, column)) if column.ours else self._order(column)
        order = order[which[order]]
        if chosen.descending:  # what is null comes last, whichever way it is sorted
            nulls = np.asarray(pc.is_null(self._values(update, column), nan_is_null=True))[order]
            order = np.concatenate([order[~nulls][::-1], order[nulls]])
        return order

    def columns(self, update: Update) -> list[Column]:
        """Name the columns that are shown: the caller's, what became of a row, and more of its record."""
        known = update.tracker
        errors = [ERROR] if any(known.others.get("error", ())) else []
        more = [Column(name, ours=True) for name in known.columns if name != "error"]
        return [*self._own, OUTCOME, *errors, *more]

    def frame(self, update: Update, rows: Rows) -> Any:
        """Give rows as a frame of the caller's kind, with the service's ``error`` beside the columns of the poll."""
        return self._frame.take(rows).assign(self._added(update, rows))

    def file(self, update: Update, rows: Rows, ending: str) -> bytes:
        """Write rows in the format of an ending; a cell that a spreadsheet would take for a formula is text."""
        table = self._frame.take(rows).arrow(list(self._frame.columns))
        added = self._added(update, rows)
        for name in added.column_names:
            table = table.append_column(name, added[name])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"rows{ending}"
            writing.write(table, path, bom=ending == ".csv")
            return path.read_bytes()

    def _added(self, update: Update, rows: Rows) -> pa.Table:
        known = update.tracker
        names = dict(known.names)
        error = known.prefix + "error"
        if error not in names and error not in self._frame.columns and "error" in known.others:
            names[error] = "error"
        columns = [known.values(ours, known.places[rows]) for ours in names.values()]
        return pa.table(columns, names=list(names))

    def html(self, update: Update, chosen: Choice) -> str:
        """Lay out the page that is chosen, with buttons that sort it and turn to another."""
        rows, columns = self.rows(update, chosen), self.columns(update)
        page = min(chosen.page, max(len(rows) - 1, 0) // PAGE)
        shown = rows[page * PAGE : (page + 1) * PAGE]
        heads = "".join(_head(place, column, chosen) for place, column in enumerate(columns))
        cells = [self._cells(update, column, shown) for column in columns]
        lines = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*cells, strict=True))  # of a page
        what = " · ".join(filter(None, [chosen.field, chosen.label])) or "all tasks"
        if chosen.search:
            what += f" · with “{in_words(chosen.search)}”"
        turn = ""
        if len(rows) > PAGE:
            first, last = page * PAGE + 1, page * PAGE + len(shown)
            back, on = _turn(page - 1, "Previous", page > 0), _turn(page + 1, "Next", last < len(rows))
            turn = f"{back} {first:,}–{last:,} of {len(rows):,} {on}"
        return (
            f'<div class="title"><b>{escape(what)}</b>: {many(len(rows), "row")}</div>'
            f'<div class="wide"><table class="latest"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
            f"<div>{turn}</div>"
        )

    def _cells(self, update: Update, column: Column, rows: Rows) -> list[str]:
        if column == OUTCOME:
            names = np.array(list(LABELS))[update.labels()[rows]]
            return [f"<td>{mark(name)}{escape(name)}</td>" for name in names]
        values = self._values(update, column, rows)
        longest = 120 if column == ERROR else 36
        words = [in_words(np.nan if value is None else value, longest) for value in values.to_pylist()]
        return [f"<td><bdi>{escape(word)}</bdi></td>" for word in words]

    @lazy
    def _own(self) -> list[Column]:
        """The caller's columns that are shown.

        The type of an entity is mostly the same. Of two columns with one name neither is shown, and an id is shown once: where
        tasks were made of leads, it stands in the leads' own column too.
        """
        once = [name for name, count in Counter(self._frame.columns).items() if count == 1]
        names = [name for name in once if name not in KEY][:_MOST]
        own = [name for name in once if name == "field" or (name == "entityId" and not self._repeats_the_id(names))]
        return [Column(name) for name in [*names, *own]]

    def _repeats_the_id(self, names: Sequence[Any]) -> bool:
        columns = (self._frame.arrow([name]).column(0) for name in ["entityId", *names])
        ids, *others = (column.cast(pa.large_string()) if _is_text(column.type) else column for column in columns)
        return any(other.type == ids.type and other.equals(ids) for other in others)

    @lazy
    def _texts(self) -> pa.Array:
        """The caller's texts of each row as one, in lower case."""
        columns = [self._frame.arrow([column.name]).column(0) for column in self._own]
        texts = [column.cast(pa.large_string()) for column in columns if _is_text(column.type)]
        if not texts:
            return pa.array([""] * len(self._frame), pa.large_string())
        between = pa.scalar(_BETWEEN, pa.large_string())
        return pc.utf8_lower(pc.binary_join_element_wise(*texts, between, null_handling="replace", null_replacement=""))

    @lazy
    def _order(self) -> Callable[[Column], Rows]:
        """Give the order of a column of the caller's; that of the last few is remembered."""
        frame = self._frame
        return lru_cache(4)(lambda column: _order(frame.arrow([column.name]).column(0)))

    def _values(self, update: Update, column: Column, rows: Rows | None = None) -> Any:
        """Give the values of a column, of all rows or of some."""
        if column == OUTCOME:
            return pa.array(update.labels())
        if column.ours:
            places = update.tracker.places
            return update.tracker.values(column.name, places if rows is None else places[rows])
        return (self._frame if rows is None else self._frame.take(rows)).arrow([column.name]).column(0)


def _order(values: Any) -> Rows:
    try:
        order = pc.array_sort_indices(_whole(values), null_placement="at_end")
    except pa.ArrowException:  # of a type that has no order, such as a list
        order = pa.array(np.arange(len(values)))
    found: Rows = order.to_numpy().astype(np.int64)
    return found


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _errors(update: Update) -> pa.Array:
    known = update.tracker
    return known.values("error", known.places) if "error" in known.others else pa.nulls(update.total, pa.string())


def _whole(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _head(place: int, column: Column, chosen: Choice) -> str:
    arrow, how = "", ""
    if chosen.sort == place:
        arrow = " ▼" if chosen.descending else " ▲"
        how = f' aria-sort="{"descending" if chosen.descending else "ascending"}"'
    text = escape(in_words(str(column.name)))
    return f'<th scope="col"{how}><button class="cell" data-do="sort" data-column="{place}"><bdi>{text}</bdi>{arrow}</button></th>'


def _turn(page: int, text: str, possible: bool) -> str:
    return f'<button data-do="page" data-page="{page}"{"" if possible else " disabled"}>{text}</button>'
