"""What a service answers to the tasks of one lookup: requested in batches, and put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ServiceError
from enrichstatus.lookup.arguments import Instant, parse_instant
from enrichstatus.lookup.query import LOOKUP_SQL, timing_out
from enrichstatus.lookup.tasks import check_keys
from enrichstatus.lookup.vectors.keys import Vocabulary
from enrichstatus.schema import SCHEMA
from enrichstatus.sources.client import batches
from enrichstatus.sources.client import responses as replies
from enrichstatus.sources.client.config import Bearer
from enrichstatus.sources.client.usual import NOTHING, Packed

if TYPE_CHECKING:
    from enrichstatus.sources.client.transport.transport import Outcome, Transport


@dataclass(frozen=True)
class Answering:
    """What a client answers with."""

    transport: Transport
    bearer: Bearer
    fields: Sequence[str]
    statuses: Mapping[str, str]
    limits: Mapping[str, timedelta]
    #: whether a progress bar is shown
    shown: bool | None

    def answer(self, con: duckdb.DuckDBPyConnection, now: Instant, names: Sequence[str]) -> pa.Table:
        """Answer the checked tasks of the table ``tasks`` by the query, as `lookup.query.look_up` wants it."""
        return self._put_together(con, now, names, self.request(con, self._read))

    def answer_at_once(
        self, lend: Callable[[], duckdb.DuckDBPyConnection], now: Instant, given: pa.Table, names: Sequence[str]
    ) -> pa.Table | None:
        """Do the same without DuckDB for tasks as they came; None where an id is not written as usual, before anything is sent."""
        vocabulary = Vocabulary(self.fields)
        if (keys := vocabulary.keys_of_table(given)) is None:
            return None
        packed, table = Packed(vocabulary, keys), NOTHING.select(["position", *names])
        outcome = self._post(packed.bodies(), len(packed), self._read)
        if outcome.answered:
            written = [table[name] for table in outcome.answered.values() for name in ("createdAt", "updatedAt")]
            newest = pc.max(pa.chunked_array(chain.from_iterable(part.chunks for part in written), _INSTANT))
            limits = self._timing_out(now, newest.cast(pa.int64()).as_py())
            table = packed.answer(outcome.answered, limits, names)
        if table is None:
            con = lend()
            check_keys(con, given)
            batches.number(con)
            self._receive(con, outcome)
            return self._put_together(con, now, names, outcome)
        if outcome.failed or outcome.interrupted:
            batches.give_up(outcome, table, packed.lost(outcome.answered))
        return table

    def request(self, con: duckdb.DuckDBPyConnection, read: Callable[[bytes], pa.Table]) -> Outcome[pa.Table]:
        """Post the distinct tasks of the table ``tasks`` in full batches; what was answered comes to stand in ``received``."""
        count = batches.number(con)
        outcome = self._post(batches.bodies(con), count, read)
        self._receive(con, outcome)
        return outcome

    def _post(self, bodies: Sequence[str], count: int, read: Callable[[bytes], pa.Table]) -> Outcome[pa.Table]:
        with batches.progress(count, shown=self.shown) as advance:
            return self.transport.post(bodies, read, advance)

    def _read(self, content: bytes) -> pa.Table:
        return replies.read(content, self.statuses)

    def _receive(self, con: duckdb.DuckDBPyConnection, outcome: Outcome[pa.Table]) -> None:
        """Make the table ``received``; a batch whose answer is to a task that it did not name has failed."""
        for place, entity in batches.receive(con, outcome.answered).items():
            del outcome.answered[place]
            what = self.bearer.hide(entity)[:60]
            outcome.failed[place] = ServiceError(
                f"The service answered with an enrichment of {what!r}, which its batch did not name.", 200
            )

    def _put_together(
        self, con: duckdb.DuckDBPyConnection, now: Instant, names: Sequence[str], outcome: Outcome[pa.Table]
    ) -> pa.Table:
        """Run the query over what was answered."""
        newest = con.execute("select epoch_us(max(greatest(createdAt, updatedAt))) from received").fetchall()[0][0]
        con.register("reached", pa.table({"batch": pa.array(outcome.answered, pa.int64())}))
        con.register("records", con.sql("select * exclude batch from received where batch in (from reached)"))
        con.register("limits", self._timing_out(now, newest))
        con.execute("create temp table asker as select distinct orgId, limits.* from records, limits")
        found = con.sql(LOOKUP_SQL).select("* replace (nullif(orgId, '') as orgId)").select("position", *names)
        table = found.to_arrow_table()
        if outcome.failed or outcome.interrupted:
            batches.give_up(outcome, table, batches.lost(con))
        return table

    def _timing_out(self, now: Instant, newest: int | None) -> pa.Table:
        """Say since when what is pending has timed out; `newest` is the last instant of all answers, in microseconds since 1970."""
        seconds = None if now is not None or newest is None else newest / 1e6
        moment = self.transport.clock.instant(parse_instant(now), seconds)
        return timing_out(self.limits, moment, evaluated=now is not None)


_INSTANT = SCHEMA.field("createdAt").type
