"""The pictures of the reports."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import ValidationError
from enrichstatus.outcomes import LABELS
from enrichstatus.presentation import share
from tests.support.factory import NOW, ORG, record, task, uid

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import to_rgba

from enrichstatus.reports.pictures import fonts


@pytest.fixture(autouse=True)
def _no_figure_is_left() -> Iterator[None]:
    yield
    pyplot.close("all")


def png(ax: Any) -> bytes:
    file = BytesIO()
    ax.figure.savefig(file, format="png")
    return file.getvalue()


def texts(ax: Any) -> str:
    """All that is written on the axes, as it is shown."""
    ax.figure.canvas.draw()
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts, ax.xaxis.label, ax.yaxis.label]
    key = ax.get_legend()
    labels += key.get_texts() if key else []
    return "\n".join([ax.get_title(loc="left"), *(label.get_text() for label in labels)])


@cache
def read(org: str = ORG) -> es.EnrichmentStore:
    """Make one store for all tests that only read it."""
    return filled(org)


def filled(org: str = ORG, limits: Any = 800) -> es.EnrichmentStore:
    rng = random.Random(1)
    store = es.EnrichmentStore(org_id=org, max_processing_time=limits)
    store.load(
        [
            record(
                n,
                entityId=uid(n // 2),
                field=rng.choice(["emails", "phones"]),
                createdAt=f"2026-{rng.choice(['10', '11'])}-{rng.randrange(1, 16):02d}T08:00:00Z",
                updatedAt=None,
                status=rng.choice(["finished", "failed", "timeout"]),
                dataFound=rng.random() < 0.5,
                createdBy=rng.choice(["user_1", "<b>$x_1$</b> & $y"]),
            )
            for n in range(60)
        ]
        + [
            record(1000 + n, createdAt="2026-11-16T08:00:00Z", updatedAt=f"2026-11-16T08:{n:02d}:00Z")
            for n in range(12)
        ]
        + [record(2000, createdAt="2026-11-16T08:59:00Z", status="pending", dataFound=None)]
    )
    return store


def status(store: es.EnrichmentStore) -> pd.DataFrame:
    answer = store.lookup([task(n, field) for n in range(40) for field in ("emails", "phones")], now=NOW)
    return answer.assign(source=np.where(np.arange(len(answer)) % 3 > 0, "Fair $5 & $6", None))


#: Each kind of picture: the report of a store, and the options of its plot.
PICTURES: dict[str, tuple[Callable[[es.EnrichmentStore], Any], dict[str, Any]]] = {
    "coverage": (lambda store: es.coverage(status(store), by="source"), {}),
    "coverage of all": (lambda store: es.coverage(status(store), by=None), {}),
    "status": (lambda store: es.coverage(status(store), by=["source", "field"]), {"kind": "status"}),
    "timing": (lambda store: es.timing(store, now=NOW), {}),
    "timing by who": (lambda store: es.timing(store, by=["createdBy", "field"], now=NOW), {}),
    "timing of all": (lambda store: es.timing(store, by=None, now=NOW), {}),
    "waste by day": (lambda store: es.waste(store, by="day", now=NOW), {}),
    "waste by week": (lambda store: es.waste(store, by="week", now=NOW), {}),
    "waste by month": (lambda store: es.waste(store, by="month", now=NOW), {}),
    "waste by createdBy": (lambda store: es.waste(store, by="createdBy", now=NOW), {}),
    "waste of all": (lambda store: es.waste(store, by=None, now=NOW), {}),
    "waste by both": (lambda store: es.waste(store, by=["week", "field"], now=NOW), {}),
    "diff": (lambda store: es.diff(status(store).iloc[:30], status(store).iloc[10:]), {}),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("org", [ORG, "org_with_nothing"])
def test_every_picture_is_drawn(name: str, org: str):
    """Full or empty it has a title, a label with a unit, and a PNG; the settings of matplotlib stay what they were."""
    before = dict(mpl.rcParams)
    report, options = PICTURES[name]
    ax = report(read(org)).plot(**options)
    assert len(png(ax)) > 5000
    assert ax.get_title(loc="left")
    assert ax.get_xlabel()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_goes_where_it_is_told(name: str):
    """Given axes are drawn on, and returned; no figure is made."""
    figure, (left, right) = pyplot.subplots(1, 2)
    make, options = PICTURES[name]
    report = make(read())
    assert report.plot(ax=left, title="Mine $x$", **options) is left
    assert left.get_title(loc="left").startswith(r"Mine \$x\$")
    assert not right.has_data()
    assert pyplot.get_fignums() == [figure.number]


def test_a_picture_is_shown_in_a_notebook():
    """A new figure is one that pyplot knows, which a notebook shows at the end of the cell."""
    ax = es.coverage([], by=None).plot()
    assert pyplot.gcf() is ax.figure


def test_names_are_no_formulas():
    """A name with dollar signs is drawn as it is; the mathematics would fail, or be drawn."""
    rows = [
        {"team": name, "status": "finished", "dataFound": True} for name in (r"$\frac{$", "<b>$x$</b>", "a\nb\x1b[1m")
    ]
    for kind in ("share", "status"):
        ax = es.coverage(rows, by="team").plot(kind=kind)
        labels = ax.get_yticklabels()
        png(ax)
        assert [label.get_text() for label in labels] == [r"\$\frac{\$", r"<b>\$x\$</b>", "a b [1m"]


def test_a_bar_has_its_interval_and_a_small_one_its_number():
    """The interval is the table's; a group with few ends is hatched and says how few, one with none says that."""
    rows = [{"team": "large", "status": "finished", "dataFound": n % 3 > 0} for n in range(60)]
    rows += [{"team": "small", "status": "finished", "dataFound": True} for _ in range(3)]
    rows += [{"team": "waiting", "status": "pending", "dataFound": None}]
    report = es.coverage(rows, by="team")
    ax = report.plot()
    [bars, ends] = ax.containers
    assert [bar.get_width() for bar in bars] == [40 / 60, 1, 0]
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, True]
    [lines] = ends.lines[2]
    shown = np.array([segment[:, 0] for segment in lines.get_segments()])
    np.testing.assert_allclose(shown, report.frame.loc[:1, ["low", "high"]])
    written = texts(ax)
    assert "66.7 %\n" in written
    assert "100.0 %  n = 3" in written
    assert "nothing has ended" in written
    assert "fewer than 30" in written


def test_outcomes_fill_the_bar():
    """By status each bar is whole, and beside it stand its number of tasks and the share with data of those that ended."""
    with filled() as store:
        status = store.lookup([task(n, field) for n in range(40) for field in ("emails", "phones")], now=NOW)
    report = es.coverage(status)
    ax = report.plot(kind="status")
    widths = np.array([[bar.get_width() for bar in bars] for bars in ax.containers])
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    emails, phones = (f"40; {share(part)}" for part in report.frame["share"])
    assert f"\n{emails}\n{phones}\n" in texts(ax)
    assert {"with data", "no data", "failed", "timeout", "no record"} <= set(texts(ax).split("\n"))


def test_the_maximum_processing_time_is_marked():
    """A dashed line stands at each maximum, named where there are several; the curves are the estimate's."""
    with filled() as store:
        ax = es.timing(store, now=NOW).plot()
        assert "maximum processing time: 13 min 20 s" in texts(ax)
        assert any(np.allclose(line.get_xdata(), 800) for line in ax.lines)
    with filled(limits={"emails": "90s", "phones": "1h"}) as store:
        report = es.timing(store, now=NOW)
        ax = report.plot()
    assert "maximum of emails: 90 s" in texts(ax)
    assert "maximum of phones: 1 h" in texts(ax)
    drawn = {line.get_label().partition(":")[0]: line for line in ax.lines}
    curve = report.details["curves"][report.frame["field"].tolist().index("emails")]
    np.testing.assert_allclose(drawn["emails"].get_ydata()[1:-1], 1 - curve["pending"])


def test_credits_are_stacked_in_their_week():
    """The bars of a week stand on its days and add up to what was spent; a week without purchases leaves a gap."""
    with filled() as store:
        report = es.waste(store, costs={"phones": 10}, now=NOW)
    ax = report.plot()
    heights = np.array([[bar.get_height() for bar in bars] for bars in ax.containers])
    np.testing.assert_allclose(heights.sum(axis=0), report.frame["spent"])
    days = [bar.get_x() for bar in ax.containers[0]]
    np.testing.assert_allclose(np.diff(days), report.frame["week"].diff().dt.days[1:])
    assert "credits spent" in texts(ax)
    assert "week that began on Monday, 2026 (UTC)" in texts(ax)
    assert "16 Nov" in texts(ax)


def test_of_many_groups_the_largest_are_drawn():
    """Beyond thirty, or as many as asked for, the picture says how many it leaves out."""
    rows = [{"team": str(n), "status": "finished", "dataFound": True} for n in range(100) for _ in range(1 + (n == 99))]
    report = es.coverage(rows, by="team")
    ax = report.plot()
    assert len(ax.get_yticks()) == 30
    assert "(the largest only; 70 more left out)" in ax.get_title(loc="left")
    ax = report.plot(most=1, kind="status")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["99"]
    with filled() as store:
        assert "(the largest only; 2 more left out)" in texts(es.timing(store, by="status", now=NOW).plot(most=2))
        assert "(the latest only;" in texts(es.waste(store, by="day", now=NOW).plot(most=3))


@pytest.mark.parametrize("options", [{"kind": "pie"}, {"most": 0}, {"most": True}, {"colour": "red"}])
def test_a_picture_that_there_is_not_is_refused(options: dict[str, Any]):
    """An unknown kind or option is named."""
    with pytest.raises(es.ValidationError, match=next(iter(options))):
        es.coverage([]).plot(**options)


def test_only_coverage_has_a_picture_by_status():
    """The others have but one."""
    with filled() as store, pytest.raises(es.ValidationError, match="kind='status'"):
        es.timing(store, now=NOW).plot(kind="status")


@pytest.mark.parametrize(
    ("style", "ground"),
    [
        ({"figure.facecolor": (1, 1, 1, 0), "text.color": "black"}, "white"),
        ({"figure.facecolor": "none", "text.color": "white"}, "black"),
        ({"figure.facecolor": "#222222", "text.color": "white"}, "#222222"),
    ],
)
def test_text_reads_on_any_page(style: dict[str, Any], ground: str):
    """Where the style is see-through the figure gets a ground that its text reads on; one that has a ground keeps it."""
    with mpl.rc_context(style):
        ax = es.coverage([], by=None).plot()
    assert to_rgba(ax.figure.get_facecolor()) == to_rgba(ground)


def test_tables_come_without_matplotlib():
    """A report that is not drawn loads no matplotlib."""
    code = "import sys, enrichstatus as es; repr(es.coverage([])); assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- styles, order, names -----------------------------------------------------------------------------------------------------


def by_source(*names: str) -> es.Report:
    """Coverage of groups of 10, 20, 30 … tasks, of which the first has the least data."""
    rows = [
        {"source": name, "status": "finished", "dataFound": task < 3 * (place + 1) ** 2}
        for place, name in enumerate(names)
        for task in range(10 * (place + 1))
    ]
    return es.coverage(rows, by="source")


def groups(ax: Any) -> list[str]:
    ax.figure.canvas.draw()
    return [label.get_text() for label in ax.get_yticklabels()]


def test_bars_are_sorted_by_share_size_or_name_and_percents_end_at_100():
    """Unless sorted they are in the table's order; what cannot be sorted is refused."""
    report = by_source("b", "C", "a")
    assert groups(report.plot(sort="share")) == ["a", "C", "b"]
    assert groups(report.plot(sort="size")) == ["a", "C", "b"]
    assert groups(report.plot(sort="name", kind="status")) == ["a", "b", "C"]
    assert groups(report.plot()) == report.frame["source"].tolist()
    assert report.plot().get_xlim() == (0, 1)
    with pytest.raises(ValidationError, match="sort= is one of 'size', 'share', 'name', not 'colour'"):
        report.plot(sort="colour")
    timing = es.timing(filled(), now=NOW)
    assert timing.plot().get_ylim() == (0, 1)
    for refused in (timing, es.waste(filled(), by="week", now=NOW)):
        with pytest.raises(ValidationError, match="sort= has no meaning"):
            refused.plot(sort="name")


def test_long_names_are_wrapped_and_what_no_font_shows_is_named():
    """A name has up to three lines; a character that no font of the machine has stands there by its name, and no warning comes."""
    long = "A campaign whose name nobody could read in one line"
    launched, hidden = "Launch \U0001f6f8", "\U00013000 \U000e0041"
    ax = by_source(long, launched, "Ünïcode Ж", hidden).plot()
    names = {name.replace("\n", " ") for name in groups(ax)}
    assert long in names
    assert max(len(line) for name in groups(ax) for line in name.split("\n")) <= 28
    assert "Ünïcode Ж" in names
    assert names & {launched, "Launch [flying saucer]"}  # by whether a font has it
    png(ax)
    assert fonts._name("\u4e2d") == "[U+4E2D]"
    assert fonts._name("\U0001f680") == "[rocket]"


def test_groups_by_two_columns_differ_where_one_name_is_long():
    """Of a name of two parts the long one is cut: the field stays, also where a long one has no font, and is spelt out."""
    long = "A campaign whose name nobody could read in one line, or in two, and that goes on for longer than three"
    rows = [
        {"source": name, "field": field, "status": "finished", "dataFound": True}
        for name in (long, "\U00013000" * 30, "short")
        for field in ("emails", "phones")
    ]
    names = groups(es.coverage(rows, by=["source", "field"]).plot())
    assert len(set(names)) == 6
    assert {name.replace("\n", " ").split(" · ")[-1] for name in names} == {"emails", "phones"}
    assert max(name.count("\n") for name in names) == 2
    assert "short · emails" in names


def test_a_long_title_stays_in_the_figure():
    """It begins where the bars do, and is written in several lines."""
    title = "Share with data of the tasks that have ended, by source and field, of the third quarter of this year"
    ax = by_source("A campaign whose name nobody could read in one line").plot(kind="status", title=title)
    ax.figure.canvas.draw()
    assert ax.get_title(loc="left").replace("\n", " ") == title
    assert ax._left_title.get_window_extent().x1 <= ax.figure.bbox.x1


def test_a_font_of_the_machine_stands_in_for_one_that_lacks_a_character():
    """With a style whose font has no Cyrillic, another that is here is taken for it."""
    with mpl.rc_context({"font.family": ["cmr10"], "axes.formatter.use_mathtext": True}):
        ax = by_source("Ж", "x").plot()
        png(ax)
        assert "Ж" in groups(ax)


def test_it_follows_the_style_and_has_a_dark_variant():
    """A style's colours, grid and size are kept; dark is for a dark page, whatever the style, and changes nothing else."""
    report = by_source("a", "b")
    with pyplot.style.context(
        {"axes.facecolor": "#EEEEDD", "figure.figsize": (5, 4), "axes.grid": True, "grid.color": "red"}
    ):
        ax = report.plot()
    assert to_rgba(ax.get_facecolor()) == to_rgba("#EEEEDD")
    assert ax.figure.get_figwidth() == 5
    assert ax.get_xgridlines()[0].get_color() == "red"
    with pyplot.style.context("ggplot"):
        line = es.timing(filled(), now=NOW).plot().get_lines()[0]
        assert line.get_color() == mpl.rcParams["axes.prop_cycle"].by_key()["color"][0]
    before = dict(mpl.rcParams)
    dark = report.plot(dark=True, kind="status")
    assert sum(to_rgba(dark.figure.get_facecolor())[:3]) < 0.5
    assert sum(to_rgba(dark.title.get_color())[:3]) > 2
    assert dict(mpl.rcParams) == before
    bars = {tuple(bar.get_facecolor()) for bar in dark.patches}
    assert bars == {to_rgba(LABELS[name].dark) for name in ("with data", "no data")}
    with pytest.raises(ValidationError, match="dark"):
        report.plot(dark="yes")


# --- charts -------------------------------------------------------------------------------------------------------------------


def test_every_report_is_a_chart_too():
    """Tooltips with n and interval, a click that filters, the palette of the outcomes; no row of the list goes into the page."""
    store = filled()
    tasks = [task(n) for n in range(20)]
    before, after = (store.lookup(tasks, now=now) for now in (NOW, "2026-12-01T00:00:00Z"))
    coverage = by_source("a", "b <i>").chart().to_dict()
    shares, parts = coverage["vconcat"]
    [bars, _] = shares["layer"]
    assert {tip["field"] for tip in bars["encoding"]["tooltip"]} >= {"share", "interval", "ended"}
    assert bars["encoding"]["x"]["scale"]["domain"] == [0, 1]
    scale = parts["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
        n: LABELS[n].light for n in ("with data", "no data")
    }
    assert [each["filter"]["param"] for each in parts["transform"]] == ["group"]
    rows = [row for data in coverage["datasets"].values() for row in data]
    assert len(rows) == 6
    assert {row["n"] for row in rows if "n" in row} == {3, 7, 12, 8}
    for report in (
        es.timing(store, now=NOW),
        es.waste(store, by=["week"], now=NOW),
        es.diff(before, after),
        es.coverage([], "field"),
    ):
        spec = report.chart().to_dict(validate=False)
        assert spec["title" if "title" in spec else "vconcat"]
        assert "params" in spec
