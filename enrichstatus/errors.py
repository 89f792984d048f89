"""Every exception that enrichstatus raises on purpose.

::

    EnrichStatusError
    ├── ValidationError      400 VALIDATION_ERROR   what was given is wrong (also a ValueError)
    ├── UnauthorizedError    401 UNAUTHORIZED       no token, or a wrong one
    ├── InternalError        500 INTERNAL_ERROR     the query itself failed
    ├── ServiceError                                the remote service cannot be reached, or breaks the contract
    │   └── PartialLookupError                      some batches were answered, others were not
    ├── StoreError                                  the file behind a store cannot be used
    │   └── StoreLockedError                        somebody else holds it
    ├── TriggerStopped                              a trigger ended midway, with what was bought and what was not
    ├── PollDeadline                                a poll's time is up, with its last update
    └── RequirementError                            a list has not ended well enough, with the figures

    UserWarning
    ├── OrganizationWarning                         there are records, but none of the caller's organization
    ├── StatusWarning                               tasks have ended with a status that is unknown
    ├── HeaderWarning                               columns of a file have no name of their own
    ├── EntityWarning                               nearly no task of a plan has a record: the wrong column?
    └── ChargeWarning                               a trigger cost more than was planned, within its limit

    KeyboardInterrupt
    ├── LookupInterrupted                           Ctrl-C, with what was answered until then
    ├── TriggerInterrupted                          Ctrl-C, with what was bought until then
    └── PollInterrupted                             Ctrl-C, with the poll's last update

The first three carry the ``code`` and the ``http_status`` of the wire contract. Errors of DuckDB, requests and Spark are wrapped, with the
original as ``__cause__``; mistakes in a program (a misspelt argument, say) stay what Python makes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd

    #: The value of an argument that would help, and the argument with its value and its purpose.
    Value = str | bool | Mapping[str, str]
    Instead = tuple[str, Value, str]


def suggested(given: object, known: Iterable[object]) -> str:
    """Say which of the names that are known is the nearest to one that is not, to be put behind a message; nothing if none is near."""
    from difflib import get_close_matches  # what most runs need not load

    def plain(name: str) -> str:
        return name.casefold().replace("_", "").replace("-", "").replace(" ", "")

    names = {plain(name): name for name in reversed(list(known)) if isinstance(name, str)}
    near = get_close_matches(plain(given), names, n=1) if isinstance(given, str) else ()
    return f" Did you mean {names[near[0]]}?" if near else ""


class _Pickled:
    """An exception that is the same where it was pickled: Python's own way would call it with the message alone."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return _again, (type(self), getattr(self, "args", ()), vars(self))


def _again(kind: type[BaseException], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *arguments)
    vars(error).update(attributes)
    return error


class EnrichStatusError(_Pickled, Exception):
    """The base of all of them."""


class ValidationError(EnrichStatusError, ValueError):
    """What was given is wrong; the message says what was expected and what to do.

    Attributes
    ----------
    problems : pandas.DataFrame or None
        All bad rows, where rows are the trouble: ``row`` (counted from 0), ``column``, ``value`` (as text) and ``reason``; for
        records read from several files also ``file``, and ``row`` counts within it.
    argument : str or None
        The name of the argument that is wrong, ``"schedule"`` say. The message begins with it.
    instead : tuple of (argument, value, purpose), or None
        An argument that would help, ``("errors", "coerce", "give them a null status")`` say. The message ends with it.

    Examples
    --------
    >>> print(ValidationError("takes text, not 3.", argument="prefix"))
    prefix= takes text, not 3.
    >>> print(ValidationError("2 bad tasks. Fix them.", instead=("errors", "coerce", "give them a null status")))
    2 bad tasks. Fix them, or pass errors="coerce" to give them a null status.
    """

    code: ClassVar[str] = "VALIDATION_ERROR"
    http_status: ClassVar[int] = 400

    def __init__(
        self,
        message: str,
        problems: pd.DataFrame | None = None,
        *,
        argument: str | None = None,
        instead: Instead | None = None,
    ):
        super().__init__(message)
        self.problems, self.argument, self.instead = problems, argument, instead

    def __str__(self) -> str:
        return self.spelled(_in_python)

    def spelled(self, spell: Callable[[str, Value | None], str]) -> str:
        """Give the whole message; `spell` writes the name of an argument, with a value for it or None.

        The command line spells arguments as its options.
        """
        text = str(self.args[0])
        if self.argument is not None:
            text = f"{spell(self.argument, None)} {text}"
        if self.instead is not None:
            name, value, purpose = self.instead
            text = f"{text.removesuffix('.')}, or pass {spell(name, value)} to {purpose}."
        return text

    @classmethod
    def of_rows(
        cls,
        what: str,
        problems: pd.DataFrame,
        remedy: str = "Fix them.",
        *,
        count: int | None = None,
        instead: Instead | None = None,
    ) -> ValidationError:
        """One error for all bad rows: the first few in the message, every one in ``.problems``.

        Where rows have no numbers, there is no column ``row``, and `count` says how many they are.
        """
        head = problems.head(3).fillna({"value": ""})  # three lines at the most, however many rows are bad
        place = (
            "row " + head["row"].astype(str) + (" of " + head["file"] if "file" in head else "") + ": "
            if count is None
            else ""
        )
        # as Python writes it: no line end and no sign that a terminal obeys
        value = (" " + head["value"].str.slice(0, 60).map(repr)).where(head["value"].str.strip() != "", "")
        shown = (place + head["column"] + value + " " + head["reason"]).tolist()
        numbers = problems.drop(columns=["column", "value", "reason"])
        rows = len(numbers.drop_duplicates()) if count is None else count
        more = f"\n  … and {len(problems) - len(shown):,} more in .problems" if len(problems) > len(shown) else ""
        lines = "".join(f"\n  {line}" for line in shown)
        noun = what if rows != 1 else what.removesuffix("s")
        counted = "Rows are counted from 0, a header not counted. " if count is None else ""
        return cls(f"{rows:,} bad {noun}:{lines}{more}\n{counted}{remedy}", problems, instead=instead)


class UnauthorizedError(EnrichStatusError):
    """There was no token, or a wrong one."""

    code: ClassVar[str] = "UNAUTHORIZED"
    http_status: ClassVar[int] = 401


class InternalError(EnrichStatusError):
    """The query failed for a reason that is not the caller's."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    http_status: ClassVar[int] = 500


class ServiceError(EnrichStatusError):
    """The remote service cannot be reached, or what it answers breaks the contract.

    Attributes
    ----------
    http_status : int or None
        What it answered with, if it did.
    retry_after : float or None
        Seconds for which it wants no request (``Retry-After``), if it said so.
    """

    def __init__(self, message: str, http_status: int | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.http_status, self.retry_after = http_status, retry_after


class PartialLookupError(ServiceError):
    """Some batches of a lookup were answered, others failed for good.

    Attributes
    ----------
    result : a frame like the tasks
        The rows that were answered, as the lookup would have given them.
    failed : a frame like the tasks
        The rows that were not, to be looked up again.
    causes : list of Exception
        What went wrong, a cause for each failed batch.
    """

    def __init__(self, message: str, result: Any, failed: Any, causes: list[Exception]):
        waits = [cause.retry_after for cause in causes if isinstance(cause, ServiceError) and cause.retry_after]
        super().__init__(message, getattr(causes[0], "http_status", None), max(waits, default=None))
        self.result, self.failed, self.causes = result, failed, causes


class LookupInterrupted(_Pickled, KeyboardInterrupt):
    """A lookup was interrupted (Ctrl-C); ``.result`` and ``.failed`` are those of `PartialLookupError`."""

    def __init__(self, message: str, result: Any, failed: Any):
        super().__init__(message)
        self.result, self.failed = result, failed


class StoreError(EnrichStatusError):
    """The file behind a store cannot be opened, read or written."""


class StoreLockedError(StoreError):
    """Another process, or another setting in this one, holds the file; the message says who and what to do."""


class OrganizationWarning(UserWarning):
    """A source holds records, but none of the organization that looks them up."""


class StatusWarning(UserWarning):
    """Tasks have ended with a status that is unknown; ``statuses=`` of a source says what it means."""


class EntityWarning(UserWarning):
    """Nearly no task of a plan has a record, though there are records of their fields: the wrong column may be the entity."""


class HeaderWarning(UserWarning):
    """Names in a file's header are missing or stand more than once: such columns have a number where they come out."""


class ChargeWarning(UserWarning):
    """While a trigger bought, the balance fell by more than was planned, though not by more than ``max_credits``."""


class TriggerStopped(EnrichStatusError):
    """A trigger ended midway, as the credits did not suffice or a request went wrong, or it cost more than ``max_credits``.

    Attributes
    ----------
    report : TriggerReport
        All that came of it.
    bought : pandas.DataFrame
        The tasks that were bought.
    left : pandas.DataFrame
        Those that were not requested.
    in_flight : pandas.DataFrame
        Those whose outcome is not known: they are leased, and the next trigger looks them up before it buys anything.
    """

    def __init__(self, message: str, report: Any):
        super().__init__(message)
        self.report = report
        self.bought, self.left, self.in_flight = report.bought, report.left, report.in_flight


class TriggerInterrupted(_Pickled, KeyboardInterrupt):
    """A trigger was interrupted (Ctrl-C); ``.report``, ``.bought``, ``.left`` and ``.in_flight`` are those of `TriggerStopped`."""

    def __init__(self, message: str, report: Any):
        super().__init__(message)
        self.report = report
        self.bought, self.left, self.in_flight = report.bought, report.left, report.in_flight


class PollDeadline(EnrichStatusError):
    """The time of a poll is up, and some tasks have not ended: they are pending, not failed.

    Attributes
    ----------
    update : Update
        The last one, with all tasks in its ``.frame``.
    """

    def __init__(self, message: str, update: Any):
        super().__init__(message)
        self.update = update


class RequirementError(EnrichStatusError):
    """A list does not reach what is required of it.

    Attributes
    ----------
    figures : dict
        ``tasks``, their number; ``ended`` and ``failed``, shares from 0 to 1.
    report : LookupReport or None
        Of a lookup from files to files, what would have been written.
    """

    def __init__(self, message: str, figures: dict[str, float]):
        super().__init__(message)
        self.figures = figures
        self.report: Any = None


class PollInterrupted(_Pickled, KeyboardInterrupt):
    """A poll was interrupted (Ctrl-C).

    Attributes
    ----------
    update : Update or None
        The last one, with all tasks in its ``.frame``; None where nothing had been looked up yet.
    """

    def __init__(self, message: str, update: Any):
        super().__init__(message)
        self.update = update


def quoted(value: object) -> str:
    """Show any value in a message as Python writes it, cut off where it is long; Python writes no number of more than 4,300 digits."""
    try:
        text = repr(value)
    except ValueError:
        text = f"{type(value).__name__} of very many digits"
    return text if len(text) <= 200 else text[:200] + "…"


def written(value: object) -> str:
    """Write a value as Python does, or as in a message where Python does not."""
    try:
        return str(value)
    except ValueError:
        return quoted(value)


def _in_python(name: str, value: Value | None) -> str:
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={'' if value is None else value}"
