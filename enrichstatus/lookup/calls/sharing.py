"""Several polls of one source share what they are answered: what one has just requested, the others do not request again."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.lookup.query import interruption
from enrichstatus.schema import KEY

Places = npt.NDArray[np.int64]

#: Seconds for which the answers of one poll are kept for the others: half of the longest wait.
_KEPT = 30.0
#: A poll that is alone keeps its last answers for whoever may join it, unless they are more than this.
_MOST = 100_000


def identity(source: object) -> Hashable:
    """Say which source this is: two clients of one service with one token are the same."""
    own = getattr(source, "identity", None)
    return own() if callable(own) else id(source)


@dataclass(eq=False)
class Round:
    """What a member requests, or has been answered."""

    owner: Member
    #: the owner's places of the tasks, in order
    places: Places
    #: the columns that are requested
    names: frozenset[str]
    #: on the clock of the polls: when it was sent, and when the last answer came
    sent: float
    came: float | None = None
    #: tasks with their place as ``task``, and the columns
    answers: list[pd.DataFrame] = field(default_factory=list)
    error: Exception | None = None
    over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Given:
    """Answers that another poll got: tasks with this poll's own places; None where it got an error and nothing else."""

    answers: pd.DataFrame | None
    sent: float
    came: float
    error: Exception | None


class Member:
    """One poll's part in the board of its source; `tasks` are its distinct tasks, row by place."""

    def __init__(self, source: object, clock: Callable[[], float], tasks: pd.DataFrame, names: frozenset[str]):
        # both are kept, or another object might get their number
        self._source, self._clock, self._tasks = source, clock, tasks
        #: the columns that it needs
        self.names = names
        self._board: _Board | None = None
        self._index: pd.Index[str] | None = None
        #: of another member's places, which of this one's they are
        self._mine: weakref.WeakKeyDictionary[Member, Places] = weakref.WeakKeyDictionary()

    def join(self) -> None:
        """Take part from now on."""
        with _LOCK:
            key = (identity(self._source), id(self._clock))
            self._board = _BOARDS.get(key)
            if self._board is None:
                self._board = _BOARDS[key] = _Board()
            self._board.members.add(self)

    def leave(self) -> None:
        """Take no part any longer."""
        board, self._board = self._board, None
        if board is not None:
            with board.lock:
                board.members.discard(self)

    def claim(
        self, places: Places, sent: npt.NDArray[np.float64], fresh: float
    ) -> tuple[list[tuple[Round, Places]], Round]:
        """Divide the tasks at these places into those that others request or have just been answered, and the rest, for a round of its own.

        `sent` is when the answer that this poll has of each was requested, NaN where it has none: only a newer one is taken, and of
        those that have come only what came in the last `fresh` seconds. The round has the columns that any of the polls needs.
        """
        now, board = self._clock(), self._board
        taken: list[tuple[Round, Places]] = []
        if board is None:  # a poll that has not begun, or is over
            return taken, Round(self, places, self.names, now)
        with board.lock:
            board.forget(now - _KEPT)
            for other in reversed(board.rounds):
                if (
                    other.owner is self
                    or not self.names <= other.names
                    or (other.came is not None and other.came < now - fresh)
                ):
                    continue
                shared = np.isin(places, self._places_of(other.owner)[other.places])
                shared &= ~(sent >= other.sent)
                if shared.any():
                    taken.append((other, places[shared]))
                    places, sent = places[~shared], sent[~shared]
            own = Round(self, places, self.names.union(*(member.names for member in board.members)), now)
            if len(places):
                board.rounds.append(own)
        return taken, own

    def receive(self, other: Round, places: Places, patience: float) -> Given | None:
        """Wait for what another poll requests; None where it gave up, or took too long, so that this poll has to request it."""
        until = self._clock() + patience
        while not other.over.wait(min(1.0, max(patience, 0.0))):
            if (stop := interruption.get()) and stop.is_set:
                raise KeyboardInterrupt
            patience = until - self._clock()
            if patience <= 0:
                return None
        if other.came is None:
            return None
        mine = self._places_of(other.owner)
        wanted = np.zeros(len(self._tasks), dtype=bool)
        wanted[places] = True
        parts = []
        for answers in other.answers:  # a few, each of many tasks
            task = mine[answers["task"].to_numpy(dtype=np.int64)]
            chosen = (task >= 0) & wanted[task]
            parts.append(answers[chosen].assign(task=task[chosen]))
        return Given(pd.concat(parts, ignore_index=True) if parts else None, other.sent, other.came, other.error)

    def finish(self, own: Round, error: Exception | None, *, given_up: bool = False) -> None:
        """Say that a round is over: what has been answered, or why it was not; `given_up`, nobody learns anything of it."""
        own.error = error
        own.came = None if given_up or not (own.answers or error) else self._clock()
        own.over.set()
        if board := self._board:
            with board.lock:
                alone = len(board.members) < 2
                if own.came is None or (alone and len(own.places) > _MOST):
                    board.rounds = [one for one in board.rounds if one is not own]
                elif alone:
                    board.rounds = [one for one in board.rounds if one is own or one.came is None]

    def _places_of(self, other: Member) -> Places:
        """Give of each place of another member the place of the same task here, -1 where there is none."""
        if other not in self._mine:
            self._mine[other] = self._keys().get_indexer(other._keys()).astype(np.int64)
        return self._mine[other]

    def _keys(self) -> pd.Index[str]:
        if self._index is None:
            columns = [pa.array(self._tasks[name], pa.string()) for name in KEY]
            self._index = pd.Index(pc.binary_join_element_wise(*columns, " ").to_pandas())
        return self._index


class _Board:
    """What the polls of one source have requested lately."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.members: weakref.WeakSet[Member] = weakref.WeakSet()
        self.rounds: list[Round] = []

    def forget(self, before: float) -> None:
        self.rounds = [one for one in self.rounds if one.came is None or one.came >= before]


def renew(source: object) -> None:
    """Let no poll that begins take answers from before now: something was bought."""
    with _LOCK:
        for (which, _), board in list(_BOARDS.items()):
            if which == identity(source):
                with board.lock:
                    board.rounds = []


#: By source and clock; a board lives as long as somebody takes part.
_BOARDS: weakref.WeakValueDictionary[tuple[Hashable, int], _Board] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def _forked() -> None:
    """Begin anew in a child: whoever was at work goes on in the parent."""
    global _LOCK
    _LOCK = threading.Lock()
    for board in list(_BOARDS.values()):
        board.lock, board.rounds = threading.Lock(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
