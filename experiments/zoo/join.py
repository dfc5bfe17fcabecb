"""Put the posteriors of several finished runs of this study into one table; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_adv.data import DATASETS
from experiments.zoo.config import TRAININGS, Config
from experiments.zoo.methods import METHODS
from experiments.zoo.record import PosteriorRecord

_JUDGED_BY = ("num_test", "epsilons", "suite", "certify", "num_probe", "num_curve", "num_shift")
"""Settings that have to agree, so that rows of one table say the same thing."""


_SUITE = "suite "
"""What hashes of the code of attacks begin with."""


def read_runs(
    folders: Sequence[str], *, across_code: bool = False
) -> tuple[list[dict[str, Any]], list[PosteriorRecord]]:
    """Return what several runs found, by data set, training and method.

    Args:
      folders: Run directories, or folders of run directories.
      across_code: Whether attacks of one name may be of several states of the code.

    Returns:
      Of every posterior what ``measure_all`` found; its record, with the command that trained it.

    Raises:
      ValueError: A folder holds no finished run of this study; runs were judged by other settings
        or on other images; or a posterior is in two of them.
    """
    folders = [run for folder in folders for run in _find_runs(folder)]
    found: list[dict[str, Any]] = []
    records: list[PosteriorRecord] = []
    place: dict[str, str] = {}
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for folder in folders:
        results, config = (_read(folder, name) for name in ("results.json", "config.json"))
        if config.get("join"):
            raise ValueError(
                f"--join: {folder} joins others itself: name those, {', '.join(config['join'])}."
            )
        own = {key: config.get(key) for key in _JUDGED_BY}
        _agree(folder, folders[0], settings, own)
        noted = results.get("sources", {})
        if across_code:
            noted = {key: value for key, value in noted.items() if not key.startswith(_SUITE)}
        _agree(folder, folders[0], sources, noted)
        for one, record in zip(
            results["data"]["posteriors"], results["data"]["records"], strict=True
        ):
            records.append(PosteriorRecord.from_json(record))
            name = records[-1].name
            if name in place:
                raise ValueError(
                    f"--join: {name} is in {place[name]} and in {folder}: leave one of them out."
                )
            place[name] = folder
            found.append(one)
    order = sorted(range(len(found)), key=lambda number: _rank(found[number]))
    return [found[number] for number in order], [records[number] for number in order]


def _rank(one: dict[str, Any]) -> tuple[int, ...]:
    """Return a posterior's place in the table: what can be compared stands together."""
    datasets = dict.fromkeys((*Config().datasets, *DATASETS))
    orders = {"dataset": datasets, "training": TRAININGS, "method": METHODS}
    return tuple(list(order).index(one[name]) for name, order in orders.items())


def describe_runs(folders: Sequence[str]) -> dict[str, Any]:
    """Return what runs that are joined took together.

    Args:
      folders: See ``read_runs``, which has read them.

    Returns:
      ``runs``: how many; ``seconds``: of all of them; ``environment``: of the one that took most;
      ``states``: where suites of one name are defined otherwise, by their code: the commits and the
      posteriors of each definition.
    """
    found = [_read(run, "results.json") for folder in folders for run in _find_runs(folder)]
    longest = max(found, key=_seconds_of)
    total = sum(_seconds_of(results) for results in found)
    told = {"runs": len(found), "seconds": total, "environment": longest["environment"]}
    states = _list_states(found)
    return {**told, "states": states} if len(states) > 1 else told


def _list_states(found: Sequence[dict[str, Any]]) -> list[dict[str, list[str]]]:
    states: dict[str, dict[str, set[str]]] = {}
    for results in found:
        suites = {k: v for k, v in results.get("sources", {}).items() if k.startswith(_SUITE)}
        own = states.setdefault(
            json.dumps(suites, sort_keys=True), {"commits": set(), "posteriors": set()}
        )
        own["commits"].add(str(results.get("environment", {}).get("commit", "unknown"))[:7])
        own["posteriors"] |= {record["name"] for record in results["data"]["records"]}
    listed = [{key: sorted(names) for key, names in own.items()} for own in states.values()]
    return sorted(listed, key=lambda own: own["commits"])


def describe_states(joined: dict[str, Any]) -> str:
    """Return a sentence on runs of several states of the code; nothing where there is one."""
    if "states" not in joined:
        return ""
    most = max(joined["states"], key=lambda own: len(own["posteriors"]))
    others = [own for own in joined["states"] if own is not most]
    told = [(", ".join(own["posteriors"]), own) for own in others] + [("all others", most)]
    states = "; ".join(f"{names} (commits {', '.join(own['commits'])})" for names, own in told)
    return f" The code of suites of one name changed between runs: {states}."


def _seconds_of(results: dict[str, Any]) -> float:
    return float(results.get("seconds", 0.0))


def _find_runs(folder: str) -> list[str]:
    """Return a run directory, or all that a folder and those in it hold, by name."""
    path = Path(folder).expanduser()
    if (path / "config.json").exists() or not path.is_dir():
        return [folder]
    # Links to runs count where they lie in the folder itself; deeper ones might lead in circles.
    settings = {*path.glob("*/config.json"), *path.rglob("config.json")}
    inside = sorted(own.parent for own in settings)
    # Runs that were joined hold nothing of their own; what holds no runs is refused where it is
    # read.
    return [str(own) for own in inside if not _is_joined(own)] or [folder]


def _is_joined(folder: Path) -> bool:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("join"))


def _read(folder: str, name: str) -> dict[str, Any]:
    path = Path(folder).expanduser() / name
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--join: {folder} is no finished run directory of experiments.zoo: {error}."
        ) from None
    if not isinstance(found, dict) or found.get("experiment") != "zoo":
        raise ValueError(f"--join: {path} is of no run of experiments.zoo.")
    return found


def leave_out_curves(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was found without curves of selective accuracy, which stay with the runs.

    They are most of a result, and nothing that is written of joined runs shows them.
    """
    return [{**one, "shift": _without_curves(one["shift"])} for one in found]


def _without_curves(shift: dict[str, Any] | None) -> dict[str, Any] | None:
    if shift is None:
        return None
    scores = {
        name: {key: part for key, part in score.items() if not key.startswith("selective")}
        for name, score in shift["scores"].items()
    }
    return {**shift, "scores": scores}


def _agree(folder: str, first: str, known: dict[str, Any], own: dict[str, Any]) -> None:
    for key, value in own.items():
        if known.setdefault(key, value) != value:
            more = " --join_across_code joins them all the same." if key.startswith(_SUITE) else ""
            raise ValueError(
                f"--join: {key} is {value!r} in {folder} and {known[key]!r} in {first} or a run "
                f"between them: one table needs posteriors that were judged alike.{more}"
            )
