"""A value that is computed when it is first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801, it is read as a word of the language, like property
    """A property that is computed once, when it is first read.

    Unlike Python 3.11's `functools.cached_property` it has no lock. That one is a lock for all objects of a class: a thread that
    computes one keeps the others waiting, and a child forked meanwhile waits for ever.
    """

    def __init__(self, compute: Callable[[Any], T]):
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> lazy[T] | T:
        if instance is None:
            return self
        # what is in __dict__ comes before a descriptor that cannot be set: the next read does not come here
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
