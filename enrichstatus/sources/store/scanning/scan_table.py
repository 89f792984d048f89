"""Records where they lie in a table of a lake, Delta or Iceberg: read as Arrow, and of its parts only those that can hold an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from enrichstatus.files.reading.lake_tables import Table, table_of
from enrichstatus.lookup.arguments import parse_org
from enrichstatus.schema import record_names
from enrichstatus.sources.store.loading.picked import of_table, with_instants
from enrichstatus.sources.store.scanning.scan import Scan
from enrichstatus.sources.store.scanning.scan_files import day_of


class TableScan(Scan):
    """A table of records, to be read; made by `EnrichmentStore.scan`. Each lookup sees one version of it."""

    _given: Any

    def _take(self, records: Any) -> str:
        self._given, self._far = records, []
        return self._table().name

    def _table(self) -> Table:
        table = table_of(self._given)
        assert table is not None
        return table

    def _arrived(self, con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
        table = self._table()
        names = record_names(table.names, self._renames)
        only = {name: self._values(table, name, names.get("orgId", ()), org_id) for name in table.partitions}
        chosen = {name: values for name, values in only.items() if values is not None}
        return with_instants(of_table(con, table, self._renames, chosen), self._epoch)

    def _values(self, table: Table, name: str, orgs: Sequence[str], org_id: str) -> list[Any] | None:
        """Choose the values of a partition that can hold an answer; None where it says neither whose nor when."""
        if list(orgs) == [name]:
            return [value for value in table.values(name) if value is None or parse_org(str(value)) in ("", org_id)]
        if self._first:
            values = table.values(name)
            days = [day_of((name, str(value))) for value in values]
            if any(days):
                dated = zip(values, days, strict=True)
                return [value for value, day in dated if day is None or day.toordinal() >= self._first]
        return None

    def _moved(self) -> bool:
        return False

    def _read_files(self) -> Sequence[str]:
        return [self.path]

    def _any(self) -> bool:
        return next(iter(self._table().stream(self._table().names[:1])), None) is not None

    def _size(self) -> str:
        return "a table, read where it lies"
