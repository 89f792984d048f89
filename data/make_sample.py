"""Make the sample data beside this script, the same files each time: ``python data/make_sample.py``.

``leads.csv``           2,000 leads of a sales team, as a CRM exports them
``enrichments.json``    some 5,000 enrichment objects in the wire format, of three organizations, as exported at `EXPORTED`
``bad_leads.csv``       a lead list with mistakes that people make
``bad_records.json``    enrichment objects of which some are unusable
``google_sheets.csv``, ``hubspot.csv``, ``salesforce.csv``, ``apollo.csv``   40 of the leads in the shapes that these export

People, companies and domains are invented; the domains end in ``.example``, which nobody can own.
"""

from __future__ import annotations

import csv
import io
import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
EXPORTED = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
ORG, OTHERS = "org_acme", ("org_globex", "org_initech")

FIRST = (
    "Ada Aisha Alejandro Amara Anders Anna Arjun Astrid Beatriz Ben Camille Carlos Chen Chiara Claire Daniel Deniz Elena Emeka "
    "Emma Erik Fatima Felix Finn Giulia Grace Hannah Hiro Ines Isaac Ivan Jana Jonas Julia Kavya Kenji Lars Laura Leila Liam "
    "Lucia Lukas Maja Marco Maria Mateo Maya Mei Mia Milan Nadia Nina Noah Nora Olga Oliver Omar Paula Pedro Priya Rachel "
    "Rafael Ravi Rosa Samir Sara Sofia Stefan Tara Theo Tomas Valeria Viktor Wei Yara Yuki Zoe"
).split()
LAST = (
    "Almeida Andersen Bauer Becker Bianchi Brown Carter Castillo Chandra Clarke Costa Dubois Eriksen Fischer Fontaine Garcia "
    "Greco Haas Hansen Hoffmann Huang Ibrahim Ito Jansen Johnson Kaya Keller Khan Kim Kowalski Larsen Laurent Lee Lindholm Lopez "
    "Martin Mehta Meyer Miller Moreau Müller Nakamura Nguyen Novak Okafor Olsen Patel Pereira Petrov Popescu Rossi Ruiz Sato "
    "Schmidt Silva Singh Smith Sørensen Suzuki Tan Taylor Thompson Vega Virtanen Wagner Walker Weber Williams Wilson Wójcik Wong "
    "Yilmaz Zhang"
).split()
STEM = (
    "Alder Amber Apex Birch Blue Bright Cedar Copper Delta Ember Falcon Fjord Granite Harbor Iron Juniper Lumen Maple Meridian "
    "North Nova Orbit Pine Quartz River Sable Silver Summit Terra Vertex Willow Zenith"
).split()
TRADE = (
    "Analytics Bank Cargo Clinics Cloud Data Energy Foods Freight Health Labs Logistics Media Motors Networks Optics Partners "
    "Pharma Robotics Software Steel Systems Textiles Travel"
).split()
COUNTRIES = {"US": 30, "GB": 14, "DE": 13, "FR": 10, "NL": 7, "ES": 6, "SE": 5, "IN": 5, "BR": 4, "CA": 4, "PL": 2}
SOURCES = {"Inbound": 22, "Webinar": 20, "LinkedIn": 18, "Trade fair": 14, "Partner": 12, "Purchased list": 14}
OWNERS = ["Dana Whitfield", "Jorge Salas", "Katrin Vogel", "Mina Park", "Sam Oyelaran", "Tess Novák"]

#: By field: how many leads it is bought for, how often data is found, the median seconds until it is
FIELDS = {"emails": (0.86, 0.78, 40), "phones": (0.58, 0.47, 75), "summary": (0.38, 0.92, 20)}
#: Where and from where data is found more often, or less
LUCK = {"US": 0.08, "GB": 0.05, "DE": -0.14, "FR": -0.08, "IN": -0.10, "Purchased list": -0.22, "Inbound": 0.08}


def main() -> None:
    """Write the files."""
    rng = random.Random(20261116)
    leads = [lead(rng) for _ in range(2000)]
    with (HERE / "leads.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, leads[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(leads)
    records = [record for one in leads for record in bought(rng, one, ORG, 1.0)]
    # other organizations enrich some of the same people: their records are nobody else's business
    for org in OTHERS:
        records += [record for one in rng.sample(leads, 500) for record in bought(rng, one, org, 0.7)]
    rng.shuffle(records)
    write_objects("enrichments.json", records)
    write_objects("bad_records.json", bad_records(records))
    (HERE / "bad_leads.csv").write_text(bad_leads(leads), encoding="utf-8")
    write_exports(random.Random(17), leads[:40])
    print(f"{len(leads):,} leads, {len(records):,} enrichments")


def pick(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def identifier(rng: random.Random, version: int = 4) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=version))


def lead(rng: random.Random) -> dict[str, str]:
    first, last, company = rng.choice(FIRST), rng.choice(LAST), f"{rng.choice(STEM)} {rng.choice(TRADE)}"
    return {
        # ids that came through an older system are version 1
        "lead_id": identifier(rng, version=1 if rng.random() < 0.05 else 4),
        "name": f"{first} {last}",
        "company": company,
        "domain": company.lower().replace(" ", "-") + ".example",
        "country": pick(rng, COUNTRIES),
        "source": pick(rng, SOURCES),
        "owner": rng.choice(OWNERS),
    }


def bought(rng: random.Random, one: dict[str, str], org: str, appetite: float) -> list[dict[str, object]]:
    """Make the enrichments that an organization bought for a lead: none for some, several of one field for others."""
    records: list[dict[str, object]] = []
    for field, (share, found, median) in FIELDS.items():
        if rng.random() > share * appetite:
            continue
        luck = found + LUCK.get(one["country"], 0) + LUCK.get(one["source"], 0)
        # weekday batches over two months; the last one was triggered minutes before the export
        start = EXPORTED - timedelta(days=rng.randrange(1, 60), seconds=rng.randrange(6 * 3600))
        if rng.random() < 0.06:
            start = EXPORTED - timedelta(seconds=rng.uniform(5, 780))
        record = enrichment(rng, one, org, field, start, luck, median)
        records.append(record)
        if record["status"] in ("failed", "timeout") and rng.random() < 0.6:  # bought again
            again = min(start + timedelta(hours=rng.uniform(1, 48)), EXPORTED - timedelta(seconds=5))
            records.append(enrichment(rng, one, org, field, again, luck, median))
        elif rng.random() < 0.03:  # bought twice for nothing
            records.append(enrichment(rng, one, org, field, start + timedelta(seconds=rng.uniform(1, 5)), luck, median))
    return records


def enrichment(
    rng: random.Random, one: dict[str, str], org: str, field: str, start: datetime, luck: float, median: float
) -> dict[str, object]:
    took = timedelta(seconds=rng.lognormvariate(0, 0.8) * median)
    status = rng.choices(["finished", "failed", "timeout", "pending"], [92, 3, 3, 2])[0]
    if status == "finished" and start + took > EXPORTED:
        status = "pending"
    if status == "timeout":
        took = timedelta(seconds=800)
    ended = start if status == "pending" else min(start + took, EXPORTED)
    return {
        "id": identifier(rng),
        "createdAt": wire(start),
        "updatedAt": wire(ended),
        "entityId": one["lead_id"],
        "entityType": "person",
        "field": field,
        "status": status,
        "error": rng.choice(["provider unavailable", "provider returned 502"]) if status == "failed" else None,
        "dataFound": rng.random() < luck if status == "finished" else None,
        "createdBy": f"user_{rng.randrange(1, 7)}",
        "orgId": org,
        "globalEnrichmentId": identifier(rng) if status == "finished" else None,
        "creditTransactionId": identifier(rng) if status == "finished" else None,
    }


def wire(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"


def bad_records(records: list[dict[str, object]]) -> list[dict[str, object]]:
    """Five good records, and six with what goes wrong in exports."""
    good = [record for record in records if record["orgId"] == ORG][:11]
    wrong: list[dict[str, object]] = [
        {"entityId": "not-a-uuid"},
        {"field": "fax"},
        {"status": None},
        {"createdAt": "yesterday"},
        {"dataFound": "perhaps", "entityType": "robot"},
        {"orgId": None},
    ]
    return [{**record, **change} for record, change in zip(good, [{}] * 5 + wrong, strict=True)]


def bad_leads(leads: list[dict[str, str]]) -> str:
    ids = [one["lead_id"] for one in leads[:4]]
    rows = [
        ("lead_id", "name"),
        (ids[0], "fine"),
        (ids[1].upper(), "fine: upper case"),
        (ids[2].replace("-", ""), "fine: no dashes"),
        ("", "no id"),
        ("jane@cedar-labs.example", "an address for an id"),
        (f"  {ids[3]} ", "fine: white space"),
        (ids[0][:-1], "a digit short"),
    ]
    return "".join(",".join(row) + "\n" for row in rows)


def write_exports(rng: random.Random, leads: list[dict[str, str]]) -> None:
    """Write leads as others export them: each with a column of ids of its own, beside the one that counts."""
    sheets, hubspot, salesforce, apollo = [], [], [], []
    for one in leads:
        first, last = one["name"].split(" ", 1)
        day = EXPORTED - timedelta(days=rng.randrange(1, 300), minutes=rng.randrange(900))
        email = f"{first[0]}.{last}@{one['domain']}".lower().encode("ascii", "ignore").decode()
        number, site = f"+49 30 5550{rng.randrange(1000, 9999)}", f"https://www.{one['domain']}"
        sheets.append(
            {
                "Person ID": one["lead_id"],
                "Full name": one["name"],
                "Company": one["company"],
                "Notes": rng.choice(["", "", 'met at "Expo", hall 3', "call back, after 5 pm", "=HYPERLINK"]),
                "Opted in": rng.choice(["TRUE", "FALSE"]),
                "Added": f"{day.month}/{day.day}/{day.year}",
            }
        )
        hubspot.append(
            {
                "Record ID": str(rng.randrange(10**11, 10**12)),
                "First Name": first,
                "Last Name": last,
                "Email": email,
                "Phone Number": number,
                "Contact owner": one["owner"],
                "Lead Status": rng.choice(["", "New", "Open", "Connected"]),
                "Create Date": day.strftime("%Y-%m-%d %H:%M"),
                "Associated Company": one["company"],
                "Enrichment person ID": one["lead_id"],
            }
        )
        salesforce.append(
            {
                "ID": "00Q" + "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijk0123456789", k=15)),
                "FIRSTNAME": first,
                "LASTNAME": last,
                "COMPANY": one["company"],
                "COUNTRY": one["country"],
                "STATUS": rng.choice(["Open - Not Contacted", "Working - Contacted", "Closed - Converted"]),
                "LEADSOURCE": one["source"],
                "DESCRIPTION": rng.choice(["", "Asked for a demo.\nPrefers mail."]),
                "CREATEDDATE": day.strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
                "PERSON_ID__C": one["lead_id"],
            }
        )
        apollo.append(
            {
                "First Name": first,
                "Last Name": last,
                "Title": rng.choice(["VP, Sales", "Head of Operations", "CEO & Founder"]),
                "Company": one["company"],
                "Email": email,
                "Email Status": rng.choice(["Verified", "Unavailable", "Extrapolated"]),
                "Work Direct Phone": "'" + number,
                "# Employees": str(rng.randrange(5, 4000)),
                "Keywords": "saas, b2b, analytics",
                "Website": site,
                "Country": one["country"],
                "Apollo Contact Id": f"{rng.getrandbits(96):024x}",
                "Person Id": one["lead_id"],
            }
        )
    # none ends its last line, as Sheets does not; one begins with a byte order mark, as Excel likes it; two write every cell in quotes
    write_table("google_sheets.csv", sheets, csv.QUOTE_MINIMAL, "\r\n")
    write_table("hubspot.csv", hubspot, csv.QUOTE_ALL, "\n", "\ufeff")
    write_table("salesforce.csv", salesforce, csv.QUOTE_ALL, "\n")
    write_table("apollo.csv", apollo, csv.QUOTE_MINIMAL, "\n")


def write_table(name: str, rows: list[dict[str, str]], quoting: int, line_end: str, mark: str = "") -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], quoting=quoting, lineterminator=line_end)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    (HERE / name).write_bytes((mark + text.getvalue().rstrip("\r\n")).encode())


def write_objects(name: str, records: list[dict[str, object]]) -> None:
    """Write a JSON array with an object a line, which people can read and diff."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
    (HERE / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
