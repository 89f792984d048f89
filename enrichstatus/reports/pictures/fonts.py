"""Which characters the fonts of this machine can show: what none can is named."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

#: Fonts of pictures, which matplotlib cannot draw, and the one that has a box for every character there is.
_OTHER = ("color", "last resort", "lastresort")


@contextmanager
def fitting(texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib take further fonts, for the characters of these texts that its own does not have."""
    signs = frozenset("".join(texts))
    families = [*mpl.rcParams["font.family"]]
    with mpl.rc_context({"font.family": [*families, *_further(tuple(families), signs - _shown_by(tuple(families)))]}):
        yield


def named(text: str) -> str:
    """Write the names of the characters that cannot be shown: ``[rocket]``, and the number of one whose name is one."""
    shown = _shown_by(tuple(mpl.rcParams["font.family"]))
    if shown.issuperset(text):
        return text
    return "".join(sign if sign in shown or sign.isspace() else _name(sign) for sign in text)


def _name(sign: str) -> str:
    if unicodedata.category(sign) in ("Mn", "Cf"):  # it only changes how another is drawn
        return ""
    name = unicodedata.name(sign, "")
    if not name or name.endswith(f"-{ord(sign):X}"):
        name = f"U+{ord(sign):04X}"
    return f"[{name.lower() if not name.startswith('U+') else name}]"


@lru_cache(16)
def _shown_by(families: tuple[str, ...]) -> frozenset[str]:
    """Give the characters that some fonts have; of those that a machine has not, the others stand in."""
    found: frozenset[str] = frozenset()
    for family in families:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        except ValueError:  # it is not here
            continue
        found |= _signs(path)
    return found or _signs(font_manager.findfont(font_manager.FontProperties()))


@lru_cache(16)
def _further(families: tuple[str, ...], signs: frozenset[str]) -> tuple[str, ...]:
    """Find fonts of this machine that have the rest of the characters, as few as can be."""
    left = {sign for sign in signs if sign.isprintable() and not sign.isspace()}
    found: list[str] = []
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.style != "normal", font.name)):
        if not left:
            break
        if font.name in (*families, *found) or any(word in font.name.lower() for word in _OTHER):
            continue
        if has := left & _signs(font.fname):
            found.append(font.name)
            left -= has
    return tuple(found)


@lru_cache(512)
def _signs(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # what cannot be read cannot be drawn either
        return frozenset()
