"""One self-contained page of reports: tables and pictures, which open anywhere and load nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

from enrichstatus.reports.report import Report

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { margin: .2rem 0 .8rem; opacity: .8; } img { max-width: 100%; height: auto; margin-top: .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .4rem; }
th, td { border-bottom: 1px solid rgba(128, 128, 128, .35); } .wide { overflow-x: auto; }
"""


class Section(NamedTuple):
    """A part of a page: a heading, a sentence, a report, and how it is drawn, once for each picture."""

    heading: str
    text: str
    report: Report
    pictures: tuple[dict[str, Any], ...] = ({},)


def page(title: str, text: str, sections: Iterable[Section]) -> str:
    """Lay out the page as HTML; every text is shown and none is run."""
    body = "".join(map(_section, sections))
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        # nothing is loaded and nothing runs, whatever is in a name
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{escape(text)}</p>{body}</body></html>\n"
    )


def _section(section: Section) -> str:
    report = section.report
    pictures = "".join(_picture(report, options) for options in section.pictures) if len(report) else ""
    return (
        f"<section><h2>{escape(section.heading)}</h2><p>{escape(section.text)}</p>"
        f'<div class="wide">{report._repr_html_()}</div>{pictures}</section>'
    )


def _picture(report: Report, options: dict[str, Any]) -> str:
    ax = report.plot(**options)
    figure: Any = ax.figure
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    from matplotlib import pyplot

    pyplot.close(figure)
    data = base64.b64encode(image.getvalue()).decode()
    width = round(figure.get_figwidth() * 100)
    return f'<img width="{width}" alt="{escape(ax.get_title() or report.headline)}" src="data:image/png;base64,{data}">'
