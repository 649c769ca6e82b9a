"""The end of a run that went well: one document, shown as JSON to machines and as a table to people.

Between the finished events of the parties and standard output. The one invariant: the table says nothing that the
document does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .progress import rate_text, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .progress import RunState
    from .run_event import Finished


def report_document(
    state: RunState, finished: Sequence[Finished], checked: bool | None, links: str = "plaintext"
) -> dict[str, Any]:
    """Everything that a run has to say. Times in seconds, sizes in bytes; `links` says what protected them.

    `result` is the first party's; `results` has each party's if they differ. Bytes and rounds are those of the parties
    that ran here. `retries` counts how often jobs ran again, over all batches of the run.
    """
    run_s = state.run_s or 0.0
    results = {end.party: end.result for end in finished}
    first = finished[0].result
    document: dict[str, Any] = {
        "job": state.job,
        "parties": [end.party for end in finished],
        "links": links,
        "result": first,
        "checked": checked,
        "jobs": state.jobs_done,
        "sessions": state.sessions,
        "retries": state.retries,
        "seconds": {"connected": state.connect_s, "ready": state.ready_s, "run": state.run_s},
        "rounds": state.rounds,
        "bytes_sent": state.bytes_sent,
        "rounds_per_second": state.rounds / run_s if run_s else None,
        "bytes_per_second": state.bytes_sent / run_s if run_s else None,
    }
    if any(result != first for result in results.values()):
        document["results"] = results
    return document


def table_rows(document: dict[str, Any], finished: Sequence[Finished]) -> list[tuple[str, str]]:
    """The lines of the summary: the job's own, then what the run was like."""
    rows: list[tuple[str, str]] = []
    same = all(end.rows == finished[0].rows for end in finished)
    for end in finished[:1] if same else finished:
        prefix = "" if same else f"{end.party}: "
        rows += [(prefix + str(row[0]), str(row[1])) for row in end.rows]
    check = {
        True: "equal to the plaintext answer",
        False: "DIFFERS from the plaintext answer",
        None: "not checked here",
    }
    rows.append(("result", check[document["checked"]]))
    if document["retries"]:
        again = "once" if document["retries"] == 1 else f"{document['retries']} times"
        rows.append(("retries", f"what had failed ran again, {again}"))
    seconds = document["seconds"]
    here = "on this host" if len(finished) > 1 else "this party"
    rows.append(("parties", f"{', '.join(document['parties'])} ({here}, {document['links']} links)"))
    rows.append(("jobs", f"{document['jobs']} on {document['sessions']} sessions"))
    if seconds["ready"] is not None and seconds["run"] is not None:
        rows.append(("time", f"{seconds['ready']:.2f} s until all sessions were ready, {seconds['run']:.2f} s to run"))
    if document["rounds_per_second"] is not None:
        rows.append(("speed", rate_text(document["rounds_per_second"], document["bytes_per_second"])))
    rows.append(("traffic", f"{scaled(document['bytes_sent'])}B sent, {document['rounds']} rounds"))
    return rows


def print_report(document: dict[str, Any], finished: Sequence[Finished]) -> None:
    """The summary table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{document['job']}", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, value in table_rows(document, finished):
        table.add_row(Text(what), Text(value))  # Text: brackets of a job's own rows are no markup
    Console().print(table)
