"""Several polls of one source share what they are answered: what one has just requested, the others do not request again."""

from __future__ import annotations

import math
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
    #: its number on the board
    which: int = -1


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
        self._source, self._clock, self.tasks = source, clock, tasks
        #: the columns that it needs
        self.names = names
        self._board: _Board | None = None
        #: the numbers of its rounds on the board
        self.rounds: list[int] = []
        #: its tasks as the polls number them, once there is another poll
        self.numbered: _Numbered | None = None

    def join(self) -> None:
        """Take part from now on."""
        with _LOCK:
            key = (identity(self._source), id(self._clock))
            self._board = _BOARDS.get(key)
            if self._board is None:
                self._board = _BOARDS[key] = _Board()
            with self._board.lock:
                self._board.add(self)

    def leave(self) -> None:
        """Take no part any longer."""
        board, self._board = self._board, None
        if board is not None:
            with board.lock:
                board.remove(self)

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
            latest = board.latest(self, places)
            left = np.ones(len(places), dtype=bool)
            for which in np.unique(latest).tolist():  # a few rounds, each of many tasks
                other = board.rounds.get(which)
                if (
                    other is None
                    or other.owner is self
                    or not self.names <= other.names
                    or (other.came is not None and other.came < now - min(fresh, _KEPT))
                ):
                    continue
                shared = (latest == which) & ~(sent >= other.sent)
                if shared.any():
                    taken.append((other, places[shared]))
                    left &= ~shared
            own = Round(self, places[left], board.names, now)
            if len(own.places):
                board.note(own)
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
        wanted = np.zeros(len(self.tasks), dtype=bool)
        wanted[places] = True
        parts = []
        for answers in other.answers:  # a few, each of many tasks
            task = self._places_of(other.owner, answers["task"].to_numpy(dtype=np.int64))
            if task is None:
                return None
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
                board.ended(own)

    def _places_of(self, other: Member, places: Places) -> Places | None:
        """Give of places of another member those of the same tasks here, -1 where there is none; None if they are numbered no longer."""
        mine, theirs = self.numbered, other.numbered
        if mine is None or theirs is None or mine.by is not theirs.by:
            return None
        return mine.places_of(theirs.numbers[places])


class _Numbers:
    """Numbers for the tasks of all polls of a source, and by number in which round each was requested last, -1 in none."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self.latest: npt.NDArray[np.int64] = np.full(0, -1)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, tasks: pd.DataFrame) -> Places:
        """Give the numbers of distinct tasks; new ones get new numbers."""
        columns = [pa.array(tasks[name], pa.string()) for name in KEY]
        keys = pc.binary_join_element_wise(*columns, " ").to_pylist()
        new, known = set(keys).difference(self._known), len(self._known)
        self._known.update(zip(new, range(known, known + len(new)), strict=True))
        if len(self._known) > len(self.latest):
            room = np.full(2 * len(self._known), -1)
            room[:known] = self.latest[:known]
            self.latest = room
        return np.fromiter(map(self._known.__getitem__, keys), np.int64, len(keys))


class _Numbered:
    """The tasks of one poll by their numbers."""

    def __init__(self, by: _Numbers, tasks: pd.DataFrame):
        self.by, self.numbers = by, by.add(tasks)
        self._order = np.argsort(self.numbers)
        self._sorted = self.numbers[self._order]

    def places_of(self, numbers: Places) -> Places:
        """Give the places of tasks with these numbers, -1 where there is none."""
        at = np.minimum(np.searchsorted(self._sorted, numbers), len(self._sorted) - 1)
        return np.where(self._sorted[at] == numbers, self._order[at], -1)


class _Board:
    """What the polls of one source have requested lately; its lock is held by whoever calls."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rounds: dict[int, Round] = {}
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()
        self._count = 0
        self._names: frozenset[str] | None = None
        self._numbers = _Numbers()
        #: rounds whose tasks have no numbers yet: a poll that is alone needs none
        self._unnumbered: list[int] = []
        self._swept = -math.inf

    def add(self, member: Member) -> None:
        self._members.add(member)
        self._names = None

    def remove(self, member: Member) -> None:
        self._members.discard(member)
        self._names = None

    @property
    def names(self) -> frozenset[str]:
        """The columns that any of the polls needs."""
        if self._names is None:
            self._names = frozenset().union(*{member.names for member in self._members})
        return self._names

    def forget(self, before: float) -> None:
        """Forget rounds that were over before then; now and then is enough."""
        if before - self._swept >= 1:
            self._swept = before
            self.rounds = {which: one for which, one in self.rounds.items() if one.came is None or one.came >= before}

    def note(self, own: Round) -> None:
        """Let others see a round."""
        own.which = self._count = self._count + 1
        own.owner.rounds.append(own.which)
        self.rounds[own.which] = own
        if len(self._numbers):
            self._number(own)
        else:
            self._unnumbered.append(own.which)

    def latest(self, member: Member, places: Places) -> Places:
        """Say in which round tasks of a member were requested last, -1 in none of another's."""
        waiting = [self.rounds[which] for which in self._unnumbered if which in self.rounds]
        if not len(self._numbers) and all(one.owner is member for one in waiting):
            self._unnumbered = [one.which for one in waiting]
            return np.full(len(places), -1)
        self._unnumbered = []
        if len(self._numbers) > _MOST + 2 * sum(len(one.tasks) for one in self._members):
            self._numbers = _Numbers()  # most are of polls that are over
        for one in waiting:
            self._number(one)
        numbers = self._numbers_of(member)
        latest: Places = self._numbers.latest[numbers[places]]
        return latest

    def _number(self, one: Round) -> None:
        numbers = self._numbers_of(one.owner)  # first: it may make room
        self._numbers.latest[numbers[one.places]] = one.which

    def _numbers_of(self, member: Member) -> Places:
        if member.numbered is None or member.numbered.by is not self._numbers:
            member.numbered = _Numbered(self._numbers, member.tasks)
        return member.numbered.numbers

    def ended(self, own: Round) -> None:
        """Keep a round that is over for the others; one that was given up, or is large and nobody else's, is not."""
        alone = len(self._members) < 2
        if own.came is None or (alone and len(own.places) > _MOST):
            self.rounds.pop(own.which, None)
        elif alone:
            self.rounds = {which: one for which, one in self.rounds.items() if one is own or one.came is None}
        earlier = [self.rounds[which] for which in own.owner.rounds if which in self.rounds and which != own.which]
        for one in earlier:  # a few
            if self._passed(one):
                del self.rounds[one.which]
        own.owner.rounds = [which for which in own.owner.rounds if which in self.rounds]

    def _passed(self, one: Round) -> bool:
        """Say whether each task of a round has been requested again since."""
        numbered = one.owner.numbered
        if numbered is None or numbered.by is not self._numbers:
            return False
        return not np.any(self._numbers.latest[numbered.numbers[one.places]] == one.which)

    def clear(self) -> None:
        self.rounds = {}


def renew(source: object) -> None:
    """Let no poll that begins take answers from before now: something was bought."""
    with _LOCK:
        for (which, _), board in list(_BOARDS.items()):
            if which == identity(source):
                with board.lock:
                    board.clear()


#: By source and clock; a board lives as long as somebody takes part.
_BOARDS: weakref.WeakValueDictionary[tuple[Hashable, int], _Board] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def _forked() -> None:
    """Begin anew in a child: whoever was at work goes on in the parent."""
    global _LOCK
    _LOCK = threading.Lock()
    for board in list(_BOARDS.values()):
        board.lock = threading.Lock()
        board.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
