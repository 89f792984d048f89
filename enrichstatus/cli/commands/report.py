"""The commands ``enrichstatus report`` and ``reconcile``: what came of a list, and whether the bill is right."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from enrichstatus.cli.options import (
    NOW,
    READING,
    TASKS,
    add_options,
    add_source,
    check_outputs,
    check_source,
    instant,
    names,
    numbers,
    open_source,
    pair,
    read_tasks,
    reading,
    refuse_stray,
)
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import EnrichStatusError

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.cli.output import Output
    from enrichstatus.reports.report import Report

#: The exit code where a bill and the records differ.
_DIFFERS = 5

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { margin: .2rem 0 .8rem; opacity: .8; } img { max-width: 100%; height: auto; margin-top: .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .4rem; }
th, td { border-bottom: 1px solid rgba(128, 128, 128, .35); } .wide { overflow-x: auto; }
"""


class _Section(NamedTuple):
    """A part of the page: a heading, a sentence, a report, and how it is drawn, once for each picture."""

    heading: str
    text: str
    report: Report
    pictures: tuple[dict[str, Any], ...] = ({},)


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "report",
        report,
        help="write a page with tables and pictures of what came of a list",
        description="Write one page that opens anywhere, offline too: what became of the tasks, where there is data and where not, "
        "and, of a store or of record files, how long it took and what the money bought.",
        examples={
            "by country and source": "enrichstatus report leads.csv --store leads.duckdb --org org_acme --by country,source -o report.html"
        },
    )
    add_options(command, *TASKS, note="TASKS")
    add_source(command)
    command.add_argument("--by", metavar="COLUMN,…", help="columns of the list; each gets a table of its own")
    command.add_argument(
        "--found",
        metavar="COLUMN",
        help="a column of the list, true or false: its share is shown beside the share with data, e.g. email_verified",
    )
    command.add_argument(
        "--costs",
        action="append",
        metavar="FIELD=CREDITS,…",
        help="credits for one task (default: purchases are counted)",
    )
    command.add_argument("--title", default="Enrichment of a lead list", help="the page's title")
    add_options(command, *NOW, note="; with --url it needs --now")
    command.add_argument(
        "--as-of",
        metavar="INSTANT",
        help="with --store: report what was known at this instant, from the loads that were done by then",
    )
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="the page: .html")
    command.set_defaults(errors="coerce")
    checking = add_command(
        commands,
        "reconcile",
        reconcile,
        help="compare a bill with the records: charged twice, without a record, for no data",
        description="Compare a billing export with the records by creditTransactionId: what was charged and recorded, without a record, "
        "without a charge, twice, for no data, or refunded. Exit code 5 where something was charged twice or without a record, or "
        "recorded without a charge. One line for each record of a transaction, or one line for all of them, is right.",
        examples={
            "a month": "enrichstatus reconcile bill.csv --store leads.duckdb --org org_acme --since 2026-10-01 --until 2026-10-31",
            "each purchase": "enrichstatus reconcile bill.xlsx --store leads.duckdb --org org_acme --column amount=credits -o found.xlsx",
        },
    )
    checking.add_argument(
        "bill",
        metavar="BILL",
        help="a line for each charge: creditTransactionId, credits, and createdAt, field, entityId, orgId if it has them",
    )
    add_options(checking, *READING, note="BILL")
    source = checking.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", metavar="FILE", help="the store with the records; it is only read")
    source.add_argument("--records", nargs="+", metavar="PATH", help="record files, without a store")
    checking.add_argument("--org", dest="org_id", metavar="ORG", help="the organization whose bill it is")
    add_options(checking, "--epoch", note="with --records: ")
    add_options(checking, "--statuses", note="; with --records")
    checking.add_argument(
        "--column",
        dest="columns",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a column of the bill that has another name, e.g. amount=credits; can be repeated",
    )
    checking.add_argument("--by", metavar="NAME,…", help="day, week, month, field, createdBy … (default: week,field)")
    checking.add_argument("--since", metavar="INSTANT", help="the bill's period begins (default: with its first line)")
    checking.add_argument(
        "--until",
        metavar="INSTANT",
        help="the bill's period ends; a date until the end of its day (default: with its last line)",
    )
    checking.add_argument(
        "--decimal", choices=[".", ","], default=".", help="what stands before the decimals of an amount (default: .)"
    )
    add_options(checking, *NOW)
    checking.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a page (.html), or a row for each purchase (.csv .tsv .xlsx .parquet .json .ndjson); - is stdout",
    )
    add_options(checking, "--format")
    checking.set_defaults(base_url=None, allow_http=None, rate=None, entity_id=None, fields=None, entity_type=None)


def report(options: argparse.Namespace, say: Output) -> None:
    """Write a page about a list."""
    from enrichstatus.cli import summary
    from enrichstatus.files.writing import write as writing
    from enrichstatus.lookup.arguments import parse_instant

    check_source(options)
    if options.store is None:
        refuse_stray(options, ["as_of"], "--store")
    check_outputs(options, output=[".html"])
    costs = numbers(options.costs, "--costs") or None
    past: dict[str, Any] = {} if options.as_of is None else {"as_of": parse_instant(options.as_of, "as_of")}
    now = past["as_of"] if past and options.now is None else instant(options)
    try:
        with open_source(options) as source:
            with read_tasks(options, source.fields, say) as tasks:
                status = source.lookup(tasks, errors="coerce", now=now, **past)
            say.tell(**summary.figures(summary.tally(status, bad=say.bad)), requests=getattr(source, "requests", None))
            sections = [*_of_list(options, status), *_of_history(source, costs, now=now, **past)]
            moment = now or datetime.now().astimezone()
            whose = f"answered by {options.base_url}" if options.base_url else f"of {options.org_id}"
            html = _page(options.title, f"{len(status):,} tasks {whose}, as of {moment:%Y-%m-%d %H:%M %Z}", sections)
    except ImportError as error:  # matplotlib is an extra
        raise EnrichStatusError(str(error)) from error
    writing.write_text(html, options.output)
    say("\n\n".join(f"{section.heading}\n{section.report}" for section in sections))
    say.tell(reports={section.heading: section.report.to_dict()["rows"] for section in sections})
    say.wrote(options.output)
    piped = say.shown(options.output) != options.output
    say(f"\n{len(html) / 1e6:.1f} MB written to {options.output}{'' if piped else ': open it in a browser'}")


def reconcile(options: argparse.Namespace, say: Output) -> int:
    """Compare a bill with the records; `say` gets the table. Exit code 5 where they differ."""
    import pyarrow as pa

    from enrichstatus.cli import summary
    from enrichstatus.files.writing import write as writing
    from enrichstatus.reports.reconcile import reconcile as compare

    check_source(options)
    check_outputs(options, output=[*writing.ENDINGS, ".html"])
    by: dict[str, Any] = {"by": names(options.by)} if options.by else {}
    how: dict[str, Any] = {name: getattr(options, name) for name in ("since", "until", "decimal")}
    columns = dict(pair(text, "--column") for text in options.columns)
    with open_source(options) as source:
        found: Any = compare(
            source,  # type: ignore[arg-type]  # of records: --url is no option here
            options.bill,
            columns=columns,
            now=instant(options),
            **by,
            **how,
            **reading(options),
        )
    if options.output and writing.ending_of(options.output) == ".html":
        text = f"The bill {options.bill} beside the records of {options.org_id}."
        beside = "Each line of the bill beside the record of its transaction."
        try:
            html = _page("Bill and records", text, [_Section("What was charged", beside, found)])
        except ImportError as error:
            raise EnrichStatusError(str(error)) from error
        writing.write_text(html, options.output)
    elif options.output:
        writing.write(pa.Table.from_pandas(found.details["purchases"], preserve_index=False), options.output)
    say(found.text(summary.columns()))
    wrong = found.details["wrong"]
    say.tell(wrong=wrong, headline=found.headline, findings=found.to_dict()["rows"])
    say.wrote(options.output)
    if options.output:
        say(f"\nwritten to {options.output}")
    return _DIFFERS if wrong else 0


def _of_list(options: argparse.Namespace, status: pd.DataFrame) -> list[_Section]:
    from enrichstatus.reports.coverage import coverage

    text = (
        "Of the tasks that have ended, the share that brought data. The lines are the range in which the true share lies, "
        "95 times of 100."
    )
    drawn = ({"kind": "status"}, {"kind": "share"})
    columns = names(options.by) if options.by else ()
    others = [
        _Section(f"By {name}", text, coverage(status, [name, "field"], found=options.found), drawn)
        for name in columns
        if name != "field"  # it has a table of its own, and stands in each
    ]
    return [_Section("By field", text, coverage(status, "field", found=options.found), drawn), *others]


def _of_history(source: Any, costs: dict[str, float] | None, **when: Any) -> list[_Section]:
    """Report on all records, where they can be had: of a service only what was looked up is known."""
    from enrichstatus.reports.timing import timing
    from enrichstatus.reports.waste import waste

    if not hasattr(source, "records"):
        return []
    took = "Of all records of the organization, from purchase to end. A pending one counts with its age."
    bought = "Of all records of the organization: purchases that brought nothing, and what was bought more than once."
    return [
        _Section("How long it takes", took, timing(source, **when)),
        _Section("What the money bought", bought, waste(source, costs=costs, **when)),
    ]


def _page(title: str, text: str, sections: list[_Section]) -> str:
    """Lay out the page as HTML; every text is shown and none is run."""
    from html import escape

    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        # nothing is loaded and nothing runs, whatever is in a name
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{escape(text)}</p>{''.join(map(_html, sections))}</body></html>\n"
    )


def _html(section: _Section) -> str:
    from html import escape

    report = section.report
    pictures = "".join(_picture(report, drawn) for drawn in section.pictures) if len(report) else ""
    return (
        f"<section><h2>{escape(section.heading)}</h2><p>{escape(section.text)}</p>"
        f'<div class="wide">{report._repr_html_()}</div>{pictures}</section>'
    )


def _picture(report: Report, drawn: dict[str, Any]) -> str:
    """Draw a picture for a light page and for a dark one, of which the browser shows one."""
    from html import escape

    (light, title, width), (dark, _, _) = (_png(report, drawn | {"dark": dark}) for dark in (False, True))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img width="{width}" alt="{escape(title or report.headline)}" src="{light}"></picture>'
    )


def _png(report: Report, drawn: dict[str, Any]) -> tuple[str, str, int]:
    """Give a picture as an address, with its title and its width in pixels."""
    import base64
    import io

    from matplotlib import pyplot

    ax = report.plot(**drawn)
    figure: Any = ax.figure
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    pyplot.close(figure)
    data = base64.b64encode(image.getvalue()).decode()
    return f"data:image/png;base64,{data}", ax.get_title(loc="left"), round(figure.get_figwidth() * 100)
