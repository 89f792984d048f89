"""Files of text: how they are encoded, and the words for a fault, with its file and its line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted

#: The column that says which file a row came from.
FILE = "__enrichstatus_file__"
COMPRESSIONS = (".gz", ".zst")
UTF8 = "utf-8-sig"  # with a byte order mark or without
_MARKS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: Encodings of Python that are for other things.
_NOT_OF_FILES = {"idna", "punycode", "unicode_escape", "raw_unicode_escape"}
#: What is not text, by its first bytes, and what to do with it.
_NOT_TEXT = {
    b"PK\x03\x04": "it is a zip archive, as Excel's workbooks are. Give a workbook the ending .xlsx, or unpack the archive.",
    b"\xd0\xcf\x11\xe0": "it is a workbook of an old Excel. Give it the ending .xls.",
    b"PAR1": "it is Parquet. Give it the ending .parquet.",
    b"\x1f\x8b": "it is compressed. Let .gz follow its ending.",
    b"\x28\xb5\x2f\xfd": "it is compressed. Let .zst follow its ending.",
}
#: More lines than this stand above no header.
_MOST = 1 << 31
#: Bytes, or characters, that are read at once.
BLOCK = 1 << 22


def check_options(
    encoding: str | None = None, skip: int = 0, multiline: bool = False, sheet: str | None = None
) -> None:
    """Refuse an encoding that nobody knows, what is not a number of lines, what is neither True nor False, and what names no sheet."""
    try:
        name = UTF8 if encoding is None else encoding
        "".encode(name)
        if codecs.lookup(name).name in _NOT_OF_FILES:
            raise LookupError
    except (LookupError, TypeError, ValueError):
        raise ValidationError(
            f"is a text encoding such as cp1252, latin-1, shift_jis or gbk, not {quoted(encoding)}.",
            argument="encoding",
        ) from None
    if not isinstance(skip, int) or isinstance(skip, bool) or not 0 <= skip < _MOST:
        raise ValidationError(
            f"is the number of lines above the header, 0 or more, not {quoted(skip)}.", argument="skip"
        )
    if not isinstance(multiline, bool):
        raise ValidationError(f"is True or False, not {quoted(multiline)}.", argument="multiline")
    if not isinstance(sheet, str | None):
        raise ValidationError(f"is the name of a sheet, not {quoted(sheet)}.", argument="sheet")


@contextmanager
def opened(path: str) -> Iterator[pa.NativeFile]:
    """Open a file, and decompress it."""
    try:
        with pa.input_stream(path, compression="detect") as stream:
            yield stream
    except (pa.ArrowException, OSError) as error:
        raise ValidationError(
            f"{path!r} cannot be read: {str(error).rstrip('.')}. Fetch it anew, or unpack it."
        ) from error


def is_utf8(path: str, encoding: str | None) -> bool:
    """Whether a file is UTF-8 without a byte order mark, which DuckDB reads."""
    with opened(path) as stream:
        return not stream.read(3).startswith(codecs.BOM_UTF8) and encoding_of(path, encoding) == UTF8


def encoding_of(path: str, given: str | None) -> str:
    """Find how a file is encoded: by its mark, else as given, else UTF-8."""
    with opened(path) as stream:
        start = stream.read(4)
    for first, why in _NOT_TEXT.items():
        if start.startswith(first):
            raise unreadable(path, 1, why)
    marked = (encoding for mark, encoding in _MARKS.items() if start.startswith(mark))
    return next(marked, UTF8 if given is None or codecs.lookup(given).name == "utf-8" else given)


def blocks(path: str, encoding: str) -> Iterator[str]:
    """Decode a file block by block."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, last = 1, False
    with opened(path) as stream:
        while not last:
            block = stream.read(BLOCK)
            last = not block
            try:
                text = decoder.decode(block, final=last)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, "replace").count("\n")
                what = f"the byte 0x{error.object[error.start]:02X} is not {'UTF-8' if encoding == UTF8 else encoding}"
                instead = ("encoding", *_other(encoding, error.object))
                raise unreadable(path, lines + before, f"{what}. Save the file as UTF-8.", instead=instead) from None
            lines += text.count("\n")
            yield text


def _other(encoding: str, block: bytes) -> tuple[str, str]:
    """Suggest an encoding for what is not text in one, and say why."""
    start = block[: 1 << 12]
    for name, nulls in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if nulls.count(0) * 2 > len(nulls):
            return name, "read UTF-16 without a byte order mark: every second byte is 0"
    if codecs.lookup(encoding).name == "shift_jis":
        return "cp932", "read what Windows calls Shift-JIS, which has more characters"
    return "cp1252", "read what Windows calls ANSI (others are latin-1, shift_jis, gbk)"


def unreadable(path: str, lines: object, why: str, **more: Any) -> ValidationError:
    """Refuse a file, with the line or lines of the fault."""
    return ValidationError(f"{path!r}, line {lines}, cannot be read: {why}", **more)


def first_line(error: Exception) -> str:
    """Cut the details from an error of DuckDB or Arrow."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:300]


def shown(text: str) -> str:
    """Give the beginning of the faulty text, on one line."""
    text = text[:200].strip().partition("\n")[0].strip()
    return repr(text[:60] + ("…" if len(text) > 60 else ""))
