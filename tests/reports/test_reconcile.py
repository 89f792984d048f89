"""The bill beside the records."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.simulation import SimulatedStore
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task, uid

mpl.use("Agg")

RECORDS = [
    record(0, creditTransactionId="t0"),
    record(1, creditTransactionId=" t1 ", dataFound=False),
    record(2, creditTransactionId="t2", createdAt="2026-11-09T08:00:00Z"),
    record(3, creditTransactionId="t3"),
    record(4, creditTransactionId="t4"),
    record(5, creditTransactionId=None),
    record(6, creditTransactionId="t6", field="phones"),
    record(9, creditTransactionId="x9", orgId="org_2"),
]
BILL = pd.DataFrame({
    "Tx": ["t0", "t1\t", "t3", "t3", "t4", "t4", "gone", "x9", None],
    "Amount": ["€ 10", "10.00", "10", "10", "10", "(10.00)", "1,000.50", "5", "2"],
    "Date": ["2026-11-16"] * 8 + ["2026-11-30"],
    "Org": [None] * 7 + ["org_2", f" {ORG} "],
})  # fmt: skip
COLUMNS = {"Tx": "creditTransactionId", "Amount": "credits", "Date": "createdAt", "Org": "orgId"}


def findings(report: es.Report) -> dict[str | None, str]:
    purchases = report.details["purchases"]
    ids = [None if pd.isna(name) else name for name in purchases["creditTransactionId"]]
    return dict(zip(ids, purchases["finding"], strict=True))


def test_each_purchase_has_a_finding(store: es.EnrichmentStore):
    """Charged and recorded, for no data, twice, refunded, without a record and without a charge are told apart, and summed by week and field."""
    store.load(RECORDS)
    report = es.reconcile(store, BILL, columns=COLUMNS)
    assert findings(report) == {
        "t0": "charged",
        "t1": "no data",
        "t3": "charged twice",
        "t4": "refunded",
        "t6": "no charge",
        "gone": "no record",
        None: "no record",
    }
    assert report.frame["week"].dt.strftime("%m-%d").tolist() == ["11-16", "11-16", "11-16", "11-30"]
    assert report.frame["field"].fillna("").tolist() == ["emails", "phones", "", ""]
    assert report.frame["credits"].tolist() == [40, 0, 1000.5, 2]
    assert report.frame["in question"].tolist() == [10, 0, 1000.5, 2]
    assert report.frame["credits refunded"].tolist() == [10, 0, 0, 0]
    assert report.details["wrong"] == 4
    assert report.headline == (
        "1,012.50 of 1,042.50 credits in question: of 7 purchases 1 charged twice, 2 charged without a record, 1 recorded without a charge; "
        "1 charged for no data; 1 refunded; 1 line of other organizations left out; 1 record without a creditTransactionId left out"
    )
    assert "org_2" not in repr(report)
    assert uid(9) not in str(report.details)
    empty = es.reconcile(es.EnrichmentStore(org_id=ORG), [])
    assert empty.frame.dtypes.drop("week").tolist() == report.frame.dtypes.drop("week").tolist()
    assert empty.headline == "The bill is empty"
    assert es.reconcile(store, BILL[:0], columns=COLUMNS).headline.startswith(
        "The bill is empty: 6 recorded without a charge"
    )
    theirs = es.reconcile(store, BILL[7:8], columns=COLUMNS).headline
    assert theirs.startswith("None of the bill's 1 line is of this organization: ")


def test_an_organization_without_records_is_not_compared(store: es.EnrichmentStore):
    """A misspelt organization accuses nobody: it is refused where others have records, and `waste` and `timing` warn."""
    store.load(RECORDS)
    with pytest.raises(es.ValidationError, match="none of the organization 'org_l'"):
        es.reconcile(store, BILL, columns=COLUMNS, org_id="org_l")
    for report in (es.waste, es.timing):
        with pytest.warns(es.OrganizationWarning, match="none of the organization 'org_l'"):
            report(store, org_id="org_l")


def test_ids_are_compared_by_value(store: es.EnrichmentStore):
    """A transaction that is a UUID is the same in capitals, in braces and without dashes."""
    store.load([record(n, creditTransactionId=uid(n)) for n in range(3)])
    spelled = [uid(0).upper(), "{" + uid(1) + "}", uid(2).replace("-", "")]
    report = es.reconcile(store, [{"creditTransactionId": name, "credits": 1} for name in spelled])
    assert findings(report) == {uid(n): "charged" for n in range(3)}


def test_an_unknown_status_is_counted_apart(store: es.EnrichmentStore):
    """A record with a status that nobody knows is not one without data: it is counted with its word and what helps."""
    store.load([record(0, creditTransactionId="t0", status="weird", dataFound=None)])
    report = es.reconcile(store, [{"creditTransactionId": "t0", "credits": 1}])
    assert findings(report) == {"t0": "unknown status"}
    assert report.details["wrong"] == 0
    assert "1 with an unknown status: 'weird' (1). statuses= (--statuses) says what a word means" in report.headline


def test_a_refund_of_something_unknown_is_wrong(store: es.EnrichmentStore):
    """Credits that were given back for no purchase of ours are counted, and not in question."""
    report = es.reconcile(store, [{"creditTransactionId": "gone", "credits": -10}])
    assert findings(report) == {"gone": "no record"}
    assert report.headline == "-10 credits, none of them in question: of 1 purchase 1 given back without a record"


def test_the_period_of_the_bill_bounds_what_counts_as_not_charged(store: es.EnrichmentStore):
    """Records before the first line and after the last are no matter of the bill, unless a period is given; a matched one always is."""
    store.load(RECORDS)
    some = BILL[:1].assign(Date="2026-11-20T00:00:00Z")
    assert findings(es.reconcile(store, some, columns=COLUMNS)) == {"t0": "charged"}
    undated = some.drop(columns="Date")
    columns = {name: ours for name, ours in COLUMNS.items() if name != "Date"}
    assert Counter(findings(es.reconcile(store, undated, columns=columns)).values()) == {"charged": 1, "no charge": 5}
    within = es.reconcile(store, undated, columns=columns, since="2026-11-10", until="2026-11-17")
    assert "t2" not in findings(within)
    for until, found in (("2026-11-30T00:00:00Z", None), ("2026-11-30", "no record")):
        assert findings(es.reconcile(store, BILL, columns=COLUMNS, until=until)).get(None) == found
    with pytest.raises(es.ValidationError, match="until= ends the period at 2026-11-16, which is not after since"):
        es.reconcile(store, BILL, columns=COLUMNS, since="2026-11-17", until="2026-11-16")
    none = es.reconcile(store, BILL, columns=COLUMNS, since="2027-01-01")
    assert none.headline.startswith("No line of the bill lies within the period")


@pytest.mark.parametrize("kind", ["text", "dates", "midnights"])
def test_a_date_lasts_until_the_end_of_its_day(store: es.EnrichmentStore, kind: str):
    """Of a bill that has dates without times the last day counts in full; one date on all lines hides no record before it."""
    store.load([record(n, creditTransactionId=f"t{n}", createdAt=f"2026-11-{n + 10}T08:00:00Z") for n in range(4)])
    read: Any = {"text": str, "dates": lambda day: pd.Timestamp(day).date(), "midnights": pd.Timestamp}[kind]
    lines = [
        {"creditTransactionId": f"t{n}", "credits": 1, "createdAt": day}
        for n, day in enumerate(["2026-11-10", "2026-11-12"])
    ]
    bill = pd.DataFrame(lines).assign(createdAt=lambda bill: bill["createdAt"].map(read))
    assert findings(es.reconcile(store, bill)) == {"t0": "charged", "t1": "charged", "t2": "no charge"}
    one = bill.assign(createdAt=read("2026-11-12"))[1:]
    report = es.reconcile(store, one)
    assert findings(report) == {"t0": "no charge", "t1": "charged", "t2": "no charge"}
    assert "all lines have the one date 2026-11-12" in report.headline
    assert findings(es.reconcile(store, one, since="2026-11-12")) == {"t1": "charged", "t2": "no charge"}


AMOUNTS = {
    "10.25": [
        "10.25",
        " 10.25 ",
        "$10.25",
        "10.25 EUR",
        "USD 10.25",
        "10.250000",
        Decimal("10.25"),
        10.25,
        "10.25 credits",
    ],
    "-10.25": ["-10.25", "−10.25", "(10.25)", "10.25-", "-€10.25", Decimal("-10.25")],  # noqa: RUF001  as it is printed
    "1234.5": ["1,234.5", "1'234.5", "1234.50", "1 234.5"],
}


@pytest.mark.parametrize("expected", AMOUNTS)
def test_amounts_are_read_as_they_are_written(store: es.EnrichmentStore, expected: str):
    """Currencies, signs, brackets and thousands are understood; with `decimal=","` the other way around; each is exact."""
    for amount in AMOUNTS[expected]:
        bill = [{"credit_transaction_id": "t0", "credits": amount}]
        assert es.reconcile(store, bill, by=None).frame["credits"].tolist() == [float(expected)], amount
        if isinstance(amount, str):
            swapped = [bill[0] | {"credits": amount.translate(str.maketrans(",.", ".,"))}]
            assert es.reconcile(store, swapped, by=None, decimal=",").frame["credits"].tolist() == [float(expected)], (
                amount
            )
    tenths = pd.DataFrame({"creditTransactionId": ["t"] * 10, "credits": ["0.1"] * 10})
    assert es.reconcile(store, tenths, by=None).frame["credits"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("bill", "options", "message"),
    [
        ([{"creditTransactionId": "t", "credits": "10,5"}], {}, r"1 bad line:\n  row 0: credits '10,5' is not an amount\nRows are counted from 0, a header not counted. Fix them, or pass decimal=\",\" to read"),
        (pd.DataFrame([["t", 1, 2]], columns=["creditTransactionId", "sum", "sum"]), {"columns": {"sum": "credits"}}, r"columns= renames sum, which the bill has more than once"),
        ([{"creditTransactionId": "t", "credits": None}], {}, r"row 0: credits is missing\nRows are counted from 0, a header not counted\. Fix them\.$"),
        ([{"creditTransactionId": "t", "credits": "10 CR"}], {}, "'10 CR' is not an amount"),
        ([{"creditTransactionId": "t", "credits": True}], {}, "credits holds bool, which is neither a number nor text"),
        ([{"creditTransactionId": "t", "credits": float("inf")}], {}, "is not an amount"),
        ([{"creditTransactionId": "t", "credits": 1, "createdAt": "16.11.2026"}], {}, "createdAt '16.11.2026' is not an instant"),
        ([{"id": "t", "credits": 1}], {}, "The bill needs the column creditTransactionId; found id, credits.*columns="),
        ([{"creditTransactionId": "t", "credits": 1}], {"columns": {"amount": "credits"}}, "columns= renames amount, but the bill has"),
        ([{"creditTransactionId": "t", "credits": 1}], {"columns": {"credits": "price"}}, "columns= renames to price"),
        ([], {"by": "year"}, "by= takes day, week, month, field"),
        ([], {"decimal": "'"}, "decimal= is one of"),
        ([], {"since": "soon"}, "since= takes a datetime"),
        ([], {"org_id": ""}, "Organization ID is missing"),
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_bill_is_refused(store: es.EnrichmentStore, bill: Any, options: dict[str, Any], message: str):
    """What is not an amount, no instant or no column is named with its row, and what would do."""
    with pytest.raises(es.ValidationError, match=message):
        es.reconcile(store, bill, **options)
    with pytest.raises(es.ValidationError, match="The records themselves are needed"):
        es.reconcile({}, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(cases(3, 30)))
def test_findings_are_what_a_plain_loop_finds(seed: int):
    """Whatever was charged, refunded and recorded: against a loop over transactions, each with at most one record."""
    generator = random.Random(seed)
    records = [
        record(n, field=generator.choice(["emails", "phones"]), dataFound=generator.random() < 0.5, creditTransactionId=f"t{n}")
        for n in range(40) if generator.random() < 0.7
    ]  # fmt: skip
    lines = [(f"t{generator.randrange(40)}", generator.choice([1, 1, 10, -1, -10, 0.5])) for _ in range(60)]
    store = es.EnrichmentStore(org_id=ORG)
    store.load(records)
    found = findings(
        es.reconcile(store, [{"creditTransactionId": name, "credits": price} for name, price in lines], now=NOW)
    )
    recorded = {one["creditTransactionId"]: one["dataFound"] for one in records}
    expected = {}
    for name in recorded.keys() | {name for name, _ in lines}:
        prices = [price for other, price in lines if other == name]
        if not prices:
            expected[name] = "no charge"
        elif name not in recorded and max(prices) < 0:
            expected[name] = "no record"
        elif min(prices) < 0 and sum(prices) <= 0:
            expected[name] = "refunded"
        elif name not in recorded:
            expected[name] = "no record"
        elif sum(prices) > max(prices):
            expected[name] = "charged twice"
        else:
            expected[name] = "charged" if recorded[name] else "no data"
    assert found == expected


def test_a_transaction_of_several_records_is_shared(store: es.EnrichmentStore):
    """A transaction that pays for a batch is one charge, of which each record bears its part."""
    store.load(
        [record(n, field=field, creditTransactionId="b") for n, field in enumerate(["emails", "phones", "phones"])]
    )
    report = es.reconcile(store, [{"creditTransactionId": "b", "credits": 30}], by="field")
    assert report.frame.set_index("field")["credits"].to_dict() == {"emails": 10, "phones": 20}
    assert report.details["wrong"] == 0
    each = es.reconcile(store, [{"creditTransactionId": "b", "credits": 10}] * 3)
    assert set(findings(each).values()) == {"charged"}
    assert each.headline == "30 credits for 3 purchases, each charged once and recorded"


PHONES, EMAILS = ("phones", 10), ("emails", 1)


@pytest.mark.parametrize(
    ("lines", "question", "found"),
    [
        ([PHONES, EMAILS], {}, {"phones": "charged", "emails": "charged"}),
        ([PHONES, EMAILS, EMAILS], {"emails": 1}, {"phones": "charged", "emails": "charged twice"}),
        ([PHONES, PHONES], {"phones": 10}, {"phones": "charged twice", "emails": "no charge"}),
        ([PHONES, PHONES, EMAILS], {"phones": 10}, {"phones": "charged twice", "emails": "charged"}),
        ([PHONES, PHONES, ("phones", -10), EMAILS], {}, {"phones": "charged", "emails": "charged"}),
    ],
)
@pytest.mark.parametrize("named", ["field", "entityId"])
def test_lines_that_say_what_they_are_for_are_compared_with_that(
    store: es.EnrichmentStore, lines: Any, question: dict[str, int], found: dict[str, str], named: str
):
    """Where a bill names the field or the entity, the records of one transaction are told apart, each with its own credits."""
    number = {"phones": 1, "emails": 2}
    store.load([record(number[field], field=field, creditTransactionId="b") for field in number])
    name = {"field": str, "entityId": lambda field: uid(number[field]).upper()}[named]
    bill = [{"creditTransactionId": "b", "credits": price, named: name(field)} for field, price in lines]
    report = es.reconcile(store, bill, by="field")
    purchases = report.details["purchases"].set_index("field")
    assert purchases["finding"].to_dict() == found
    assert purchases["in question"][lambda amount: amount > 0].to_dict() == question
    assert purchases["credits"].to_dict() == {
        field: sum(price for other, price in lines if other == field) for field in number
    }


@pytest.mark.parametrize(
    ("prices", "question"),
    [
        ([1000], 0),
        ([10] * 100, 0),
        ([10] * 101, 10),
        ([1000] * 50, 49_000),
        ([1000, 1000, -300], 700),
        ([900, 100], 0),
    ],
    ids=str,
)
def test_a_second_charge_of_a_batch_is_seen(store: es.EnrichmentStore, prices: list[int], question: int):
    """A line for each record of a transaction, or one for all, is right; what repeats an amount beyond that is a second charge."""
    store.load([record(n, creditTransactionId="b") for n in range(100)])
    report = es.reconcile(store, [{"creditTransactionId": "b", "credits": price} for price in prices], by=None)
    assert report.frame["in question"].tolist() == [pytest.approx(question)]
    assert report.frame["charged twice"].tolist() == [100 if question else 0]
    assert report.frame["credits"].tolist() == [pytest.approx(sum(prices))]


def test_a_period_counts_lines_and_all_lines_decide(store: es.EnrichmentStore):
    """A second charge or a refund is reported in its own month, whenever the first charge was; the sums are those of the invoices."""
    store.load([record(n, creditTransactionId=f"t{n}", createdAt="2026-11-10T07:00:00Z") for n in range(2)])
    booked = [("t0", 10, "2026-11-10"), ("t0", 10, "2026-12-05"), ("t1", 10, "2026-11-10"), ("t1", -10, "2027-01-07")]
    bill = [{"creditTransactionId": name, "credits": price, "createdAt": day} for name, price, day in booked]
    frame = es.reconcile(store, bill, by="month").frame
    assert frame["credits"].tolist() == [20, 10, -10]
    assert frame["in question"].tolist() == [0, 10, 0]
    assert frame["credits refunded"].tolist() == [0, 0, 10]
    december = es.reconcile(store, bill, since="2026-12-01", until="2026-12-31")
    assert findings(december) == {"t0": "charged twice"}
    assert december.headline == "10 of 10 credits in question: of 1 purchase 1 charged twice"
    assert es.reconcile(store, bill, until="2026-11-30").details["wrong"] == 0


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "csv", "parquet", "categories", "numbers"])
def test_a_bill_is_any_frame_or_file(store: es.EnrichmentStore, kind: str, tmp_path: Path):
    """The same is found, whatever the bill comes in; ids that are numbers match the records' text, beside nulls too."""
    store.load([record(0, creditTransactionId="17"), record(1, creditTransactionId="18")])
    frame = pd.DataFrame(
        {"creditTransactionId": ["17", "18", None], "credits": [Decimal("1.10"), Decimal("1.10"), Decimal("-1")]}
    )
    made = {
        "pandas": lambda: frame,
        "polars": lambda: pl.from_pandas(frame),
        "arrow": lambda: pa.Table.from_pandas(frame),
        "csv": lambda: frame.to_csv(tmp_path / "bill.csv", index=False) or tmp_path / "bill.csv",
        "parquet": lambda: frame.to_parquet(tmp_path / "bill.parquet") or tmp_path / "bill.parquet",
        "categories": lambda: frame.astype({"creditTransactionId": "category"}),
        "numbers": lambda: frame.assign(creditTransactionId=[17.0, 18.0, None]),
    }[kind]()
    assert findings(es.reconcile(store, made)) == {"17": "charged", "18": "charged", None: "no record"}


def test_the_ledger_of_a_service_is_reconciled():
    """What a simulated service has charged is what its records say, by week and field."""
    with SimulatedStore(seed=3, clock=lambda: 1000.0) as service:
        service.trigger([uid(n) for n in range(50)], "phones")
        service.trigger([uid(n) for n in range(80)], "emails")
        report = es.reconcile(service, service.ledger())
        assert report.details["wrong"] == 0
        assert report.headline == "580 credits for 130 purchases, each charged once and recorded"
        lost = es.reconcile(service, service.ledger()[1:], since="2000-01-01")
        assert findings(lost)[service.ledger()["creditTransactionId"][0]] == "no charge"


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_a_bill_has_a_picture(store: es.EnrichmentStore, style: str):
    """The picture shows the credits by week, or by group, what is wrong hatched; and says so where there is nothing."""
    from matplotlib import pyplot

    store.load(RECORDS)
    with pyplot.style.context(style):
        ax = es.reconcile(store, BILL, columns=COLUMNS).plot()
        said = [text.get_text() for text in ax.get_legend().get_texts()]
        assert sorted(said) == [
            *("charged (20)", "charged twice (10)", "given back (10)", "no charge (1 purchase)"),
            *("no data (10)", "no record (1,002.50)", "refunded (10)"),
        ]
        assert [text.get_text() for text in ax.texts] == [
            "1,040.50\n1,010.50 in question\n1 without a charge",
            "2\n2 in question",
        ]
        low, high = ax.get_xlim()
        assert high - low >= 6 * 7
        assert "week that began on Monday, 2026 (UTC)" in ax.get_xlabel()
        for by in ("field", ["createdBy", "status"], None):
            assert es.reconcile(store, BILL, columns=COLUMNS, by=by).plot().get_xlabel() == "credits"
        nothing = es.reconcile(store, [], until="2000-01-01").plot()
        assert nothing.get_title(loc="left") == "What was charged, by week"
        assert [text.get_text() for text in nothing.texts] == ["nothing to show"]
        pyplot.close("all")


def test_the_command_reconciles(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """It shows the table, writes a page or the purchases, and ends with 5 where bill and records differ, with 0 where they do not."""
    path, bill = tmp_path / "s.duckdb", tmp_path / "bill.csv"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load(RECORDS)
    BILL.to_csv(bill, index=False)
    renamed = [text for theirs, ours in COLUMNS.items() for text in ("--column", f"{theirs}={ours}")]
    command = ["reconcile", str(bill), "--store", str(path), "--org", ORG, *renamed]
    assert main([*command, "-o", str(tmp_path / "found.csv")]) == 5
    assert "1,012.50 of 1,042.50 credits in question" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "found.csv")
    assert Counter(found["finding"])["no record"] == 2
    assert main([*command, "--by", "field", "-o", str(tmp_path / "page.html")]) == 5
    page = (tmp_path / "page.html").read_text()
    assert "data:image/png" in page
    assert page.count("credits in question") == 1
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    assert main(command) == 5
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert "in question" in next(line for line in shown if line.startswith("week"))
    assert "more columns in .frame" in shown[-1]
    capsys.readouterr()
    assert main([*command, "--decimal", ","]) == 2
    assert "--decimal" in capsys.readouterr().err
    assert main([*command, "-o", str(bill)]) == 2
    assert "would replace" in capsys.readouterr().err
    BILL[:2].to_csv(bill, index=False)
    assert main([*command, "--since", "2026-11-16", "--until", "2026-11-16T00:00:01Z"]) == 0
    assert main([*command, "--since", "2026-11-16", "--until", "2026-11-15"]) == 2
    assert task(0)["entityId"] not in capsys.readouterr().out


def test_a_transaction_that_is_charged_over_many_days_is_told_apart_only_where_it_is_asked(store: es.EnrichmentStore):
    """By day, by week, by field or in one row, the sums are the same, and each record of the transaction bears its part of each charge."""
    count, days = 60, 40
    store.load([record(n, creditTransactionId="t", field=["emails", "phones"][n % 2]) for n in range(count)])
    dates = [f"2026-{10 + day // 31}-{day % 31 + 1:02}" for day in range(days)]
    bill = pd.DataFrame({"creditTransactionId": "t", "credits": 3.0, "createdAt": dates})
    expected = {"day": days, "week": 7, "month": 2, "field": 2, None: 1}
    for by, groups in expected.items():
        report = es.reconcile(store, bill, by=by)
        assert len(report.frame) == groups
        assert report.frame["credits"].sum() == pytest.approx(3.0 * days)
        assert report.frame["purchases"].sum() == (count if by in ("field", None) else count * groups)
        assert set(report.details["purchases"]["credits"].round(9)) == {3.0 * days / count}
