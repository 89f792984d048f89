"""Dashboards for a test, of a service on a clock that stands still."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import enrichstatus as es
from tests.support.polled import Clock, Service
from tests.support.waiting import threads, until

#: HTML that would do something, were it taken as such.
EVIL = "<img src=x onerror=\"alert('&')\">"


Make = Callable[..., es.Dashboard]


def service(ends: Any, **options: Any) -> Service:
    """A service on a clock that stands still: what ends at 0 has ended, the rest has not."""
    return Service(Clock(), ends, **options)


def settled(dashboard: es.Dashboard, phase: str) -> None:
    until(lambda: dashboard.phase == phase and not threads())


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", html, flags=re.S)).split())


def press(view: Any, do: str, **data: Any) -> None:
    """Do what a page does where a button is pressed."""
    view._hear(view, {"do": do, "id": "1", **data}, [])
