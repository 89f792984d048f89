"""Whose records a source in DuckDB has: of the organization that asks, of others alone, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import duckdb

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.arguments import choices
from enrichstatus.lookup.query import NEW_ORGANIZATION, no_records_of
from enrichstatus.schema import ENTITY_TYPES
from enrichstatus.sources.store.database.connection import Database


class Owned(Database, ABC):
    """A database whose records are of organizations."""

    #: the organization that asks, unless a call names another
    org_id: str | None
    #: organizations that are known to have records
    _known: set[str]

    def check_organization(self, *, new: bool = False) -> bool:
        """Say whether there is any record; all of them other organizations' is an error, unless ours is meant to be a `new` one."""
        if self.org_id and (message := self.lacks(self.org_id)):
            if not new:
                raise ValidationError(message, instead=NEW_ORGANIZATION)
            self._known.add(self.org_id)
        with self._cursor() as con:
            return self._holds(con)

    def lacks(self, org_id: str | None) -> str:
        """Say that there are records, but none of the organization; nothing where that is not so."""
        if org_id and org_id not in self._known:
            with self._cursor() as con:
                if not self._holds(con, org_id):
                    return no_records_of(org_id) if self._holds(con) else ""
            self._known.add(org_id)
        return ""

    def holds(self, fields: Sequence[str] = (), entity_type: str | None = None) -> bool:
        """Say whether the organization has a record, of one of some fields and of a type of entity if these are given."""
        fields = choices("fields", fields, self.fields)
        choices("entity_type", () if entity_type is None else entity_type, ENTITY_TYPES)
        with self._cursor() as con:
            return self._holds(con, self.org_id, fields, entity_type)

    @abstractmethod
    def _holds(
        self,
        con: duckdb.DuckDBPyConnection,
        org_id: str | None = None,
        fields: Sequence[str] = (),
        kind: str | None = None,
    ) -> bool:
        """Whether there is a record, of an organization or of any, of some fields or of any, of a type of entity or of any."""
