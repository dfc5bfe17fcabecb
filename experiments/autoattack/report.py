"""Rows, table and sentences of the comparison with AutoAttack; all follow from the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.report.table import Table, to_markdown

Row = dict[str, Any]


def build_row(head: Row, autoattack: Row, suites: Mapping[str, Row]) -> Row:
    """Set AutoAttack and the suites side by side on one posterior and threat.

    Args:
      head: posterior, num_draws, threat, norm, epsilon and num_images.
      autoattack: From ``attackers.run_autoattack``.
      suites: From ``run_suite``, by name.

    Returns:
      The head with the share that is ``clean``, ``autoattack`` and ``suites``: records with their
      ``accuracy``, and for a suite the images that only one of the two broke.
    """
    count = head["num_images"]

    def side(record: Row) -> Row:
        return {"accuracy": len(record["standing"]) / count, **record}

    left = set(autoattack["standing"])
    return {
        **head,
        "clean": len(autoattack["clean"]) / count,
        "autoattack": side(autoattack),
        "suites": {
            name: {
                **side(record),
                "only_autoattack_broke": sorted(set(record["standing"]) - left),
                "only_suite_broke": sorted(left - set(record["standing"])),
            }
            for name, record in suites.items()
        },
    }


def list_errors(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every attacker whose images are not what they should be."""
    errors = []
    for row in rows:
        for name, record in {"AutoAttack": row["autoattack"], **row["suites"]}.items():
            at = f"{row['posterior']}, {row['threat']}, {name}"
            for kind, what in (
                ("outside", "outside ball or box"),
                ("unconfirmed", "said to be broken, and classified correctly by the posterior"),
            ):
                if record[kind]:
                    errors.append(
                        f"{at}: not counted, {what}: images {', '.join(map(str, record[kind]))}."
                    )
    return errors


def summarise(rows: Sequence[Row]) -> str:
    """Say for every suite how often it leaves more, as many or fewer images than AutoAttack."""
    total = sum(row["num_images"] for row in rows)
    theirs = sum(len(row["autoattack"]["standing"]) for row in rows)
    sentences = [
        f"Cases (a posterior and a threat): {len(rows)}. Of their {total} images AutoAttack "
        f"leaves {theirs}."
    ]
    for suite in rows[0]["suites"]:
        ours = [row["suites"][suite] for row in rows]
        changes = [
            len(own["standing"]) - len(row["autoattack"]["standing"])
            for own, row in zip(ours, rows, strict=True)
        ]
        more, same = sum(c > 0 for c in changes), sum(c == 0 for c in changes)
        sentences.append(
            f"{suite} leaves {sum(len(o['standing']) for o in ours)}: more than AutoAttack in "
            f"{more} of {len(rows)} cases, as many in {same}, fewer in {len(rows) - more - same}; "
            f"AutoAttack alone broke {sum(len(o['only_autoattack_broke']) for o in ours)}, {suite} "
            f"alone {sum(len(o['only_suite_broke']) for o in ours)}."
        )
    errors = len(list_errors(rows))
    if errors:
        sentences.append(f"Images that were not counted: see the {errors} errors.")
    return " ".join(sentences)


def build_table(rows: Sequence[Row], version: str) -> Table:
    """Return the comparison as a table.

    Args:
      rows: From ``build_row``, of the same suites.
      version: AutoAttack's.
    """
    suites = tuple(rows[0]["suites"])
    header = (
        *("posterior", "threat", "clean %", "AutoAttack %", "after its stages %"),
        *(f"{suite} %" for suite in suites),
        *(f"only AutoAttack broke ({suite})" for suite in suites),
        *(f"only {suite} broke" for suite in suites),
        *("AutoAttack s", *(f"{suite} s" for suite in suites)),
    )
    body = []
    for row in rows:
        theirs, ours = row["autoattack"], list(row["suites"].values())
        after = [100 * s["standing"] / row["num_images"] for s in theirs["stages"]]
        body.append(
            (
                *(row["posterior"], row["threat"], 100 * row["clean"], 100 * theirs["accuracy"]),
                " / ".join(f"{share:.4g}" for share in after) or None,
                *(100 * own["accuracy"] for own in ours),
                *(len(own["only_autoattack_broke"]) for own in ours),
                *(len(own["only_suite_broke"]) for own in ours),
                *(theirs["seconds"], *(own["seconds"] for own in ours)),
            )
        )
    caption = (
        f"Images that still stand, % of {rows[0]['num_images']}, under PyTorch AutoAttack "
        f"({version}; stages in its order, as PyTorch counts them) and this library's suites, "
        "on the prediction of the same draws. Both sides' images were predicted anew and measured. "
        "Seconds are wall time; a suite's hold the compilation of programs that were not cached."
    )
    return Table("Suites beside AutoAttack", header, tuple(body), caption)


def build_overview(rows: Sequence[Row]) -> Table:
    """Return one row a posterior, one column a threat: what AutoAttack and the suites leave.

    Args:
      rows: From ``build_row``, of the same suites.
    """
    suites = tuple(rows[0]["suites"])
    threats = tuple(dict.fromkeys(row["threat"] for row in rows))
    cells = {
        (row["posterior"], row["threat"]): " / ".join(
            f"{100 * record['accuracy']:.4g}"
            for record in (row["autoattack"], *(row["suites"][suite] for suite in suites))
        )
        for row in rows
    }
    body = tuple(
        (name, *(cells.get((name, threat)) for threat in threats))
        for name in dict.fromkeys(row["posterior"] for row in rows)
    )
    caption = f"In each cell: % of the images left by AutoAttack / {' / '.join(suites)}."
    return Table("What is left", ("posterior", *threats), body, caption)


def format_results(results: Mapping[str, Any]) -> str:
    """Return table, caption, summary and errors as Markdown."""
    table = build_table(results["rows"], results["config"]["autoattack_version"])
    overview = build_overview(results["rows"])
    parts = [
        *(f"## {table.title}", to_markdown(table).rstrip(), table.caption),
        *(f"## {overview.title}", to_markdown(overview).rstrip(), overview.caption),
        results["summary"],
    ]
    return "\n\n".join(parts + [f"Error: {error}" for error in results["errors"]])
