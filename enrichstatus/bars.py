"""A progress bar over the updates of a poll."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from enrichstatus.updates import Update, spoken


def follow(updates: Iterable[Update], *, shown: bool | None) -> Iterator[Update]:
    """Draw a bar of the tasks that have ended, and give the updates on."""
    if not (shown if shown is not None else "ipykernel" in sys.modules or sys.stderr.isatty()):
        yield from updates
        return
    from tqdm.auto import tqdm

    bar = None
    try:
        for update in updates:
            if bar is None:
                layout = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} ended, {elapsed}{postfix}"
                bar = tqdm(total=update.total, unit="task", bar_format=layout)
            bar.n = update.ended
            bar.set_postfix_str(told(update), refresh=False)
            bar.refresh()
            yield update
    finally:
        if bar is not None:
            bar.close()


def told(update: Update) -> str:
    """Say what the bar does not: the statuses, how long it may take, and when it asks next."""
    counts = update.counts.drop(columns=["tasks", "ended", "with data"]).sum()
    parts = [f"{count:,} {name}" for name, count in counts.items() if count and name != "finished"]
    if update.most_in is not None:
        parts.append(f"90 % of the rest in {spoken(update.most_in)}")
    if update.error is not None:
        parts.append(f"not answered: {str(update.error)[:60]}")
    if update.next_in is not None:
        parts.append(f"asks in {spoken(update.next_in)}")
    return ", ".join(parts)
