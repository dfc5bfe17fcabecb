"""Put the posteriors of several finished runs of this study into one table; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bnn_adv.data import DATASETS
from experiments.zoo.config import TRAININGS, Config
from experiments.zoo.methods import METHODS
from experiments.zoo.record import PosteriorRecord

_JUDGED_BY = ("num_test", "epsilons", "suite", "certify", "num_probe", "num_curve", "num_shift")
"""Settings that have to agree, so that rows of one table say the same thing."""

_SUITE, _DATA = "suite ", "data "
"""What hashes of the code of attacks, and of inputs, are named by."""


class _State(NamedTuple):
    """What ran one state of the code of attacks.

    suites: Hashes of that code, by suite.
    commits: Those at which it ran, by their first characters.
    posteriors: Names of what it attacked.
    """

    suites: dict[str, str]
    commits: set[str]
    posteriors: set[str]


class _Finished(NamedTuple):
    """What a folder holds: a run, or several that were joined before.

    folder: Where it is.
    is_joined: Whether it is several.
    found: See ``measure_all``; one a posterior.
    records: As many.
    judged: Settings by which all were judged.
    data: Hashes of the inputs.
    states: Of the code of attacks; one of a run.
    runs: How many.
    seconds: Of all of them.
    environment: Of the one that took most.
    """

    folder: str
    is_joined: bool
    found: list[dict[str, Any]]
    records: list[PosteriorRecord]
    judged: dict[str, Any]
    data: dict[str, str]
    states: list[_State]
    runs: int
    seconds: float
    environment: dict[str, Any]


class Joined(NamedTuple):
    """Posteriors of several runs.

    found: Of every posterior what ``measure_all`` found, by data set, training and method.
    records: Its record, with the command that trained it.
    about: ``runs``: how many runs that was; ``seconds``: of all of them, those of posteriors that
      were replaced among them; ``environment``: of the one that took most; ``judged``: settings by
      which all were judged; ``data``: hashes of the inputs; ``states``: of every state of the code
      of attacks its hashes, the commits and the posteriors.
    """

    found: list[dict[str, Any]]
    records: list[PosteriorRecord]
    about: dict[str, Any]


def read_runs(folders: Sequence[str], *, across_code: bool = False) -> Joined:
    """Return what several runs found.

    A run's posterior replaces the same one of runs that were joined before, so that a table of
    which nothing but its results is left can be brought up to date.

    Args:
      folders: Run directories, or folders of run directories; one may hold runs that were joined.
      across_code: Whether attacks of one name may be of several states of the code.

    Raises:
      ValueError: A folder holds no finished run of this study; runs were judged by other settings
        or on other images; or a posterior is in two of them.
    """
    finished = [_read(run) for folder in folders for run in _find_runs(folder)]
    _check_alike(finished, across_code=across_code)
    place = _choose(finished)
    found: list[dict[str, Any]] = []
    records: list[PosteriorRecord] = []
    for own in finished:
        for one, record in zip(own.found, own.records, strict=True):
            if place[record.name] == own.folder:
                found.append(one)
                records.append(record)
    order = sorted(range(len(found)), key=lambda number: _rank(found[number]))
    longest = max(finished, key=lambda own: own.seconds)
    return Joined(
        [found[number] for number in order],
        [records[number] for number in order],
        {
            "runs": sum(own.runs for own in finished),
            "seconds": sum(own.seconds for own in finished),
            "environment": longest.environment,
            "judged": finished[0].judged,
            "data": {key: value for own in finished for key, value in own.data.items()},
            "states": _list_states(finished, place),
        },
    )


def _choose(finished: Sequence[_Finished]) -> dict[str, str]:
    """Return the folder from which each posterior comes: runs go before runs joined before."""
    place: dict[str, str] = {}
    for is_joined in (False, True):
        before = dict(place)
        for own in (own for own in finished if own.is_joined is is_joined):
            for record in own.records:
                if record.name in before:
                    continue
                if record.name in place:
                    raise ValueError(
                        f"--join: {record.name} is in {place[record.name]} and in {own.folder}: "
                        "leave one of them out."
                    )
                place[record.name] = own.folder
    return place


def _rank(one: dict[str, Any]) -> tuple[int, ...]:
    """Return a posterior's place in the table: what can be compared stands together."""
    datasets = dict.fromkeys((*Config().datasets, *DATASETS))
    orders = {"dataset": datasets, "training": TRAININGS, "method": METHODS}
    return tuple(list(order).index(one[name]) for name, order in orders.items())


def _check_alike(finished: Sequence[_Finished], *, across_code: bool) -> None:
    """Raise where rows of one table would not say the same thing."""
    known: dict[str, Any] = {}
    for own in finished:
        compared = [own.judged, own.data]
        if not across_code:
            compared += [state.suites for state in own.states]
        for key, value in (pair for part in compared for pair in part.items()):
            if known.setdefault(key, value) != value:
                more = " --join_across_code joins them all the same."
                raise ValueError(
                    f"--join: {key} is {value!r} in {own.folder} and {known[key]!r} in "
                    f"{finished[0].folder} or a run between them: one table needs posteriors that "
                    f"were judged alike.{more if key.startswith(_SUITE) else ''}"
                )


def _list_states(finished: Sequence[_Finished], place: dict[str, str]) -> list[dict[str, Any]]:
    states: dict[str, _State] = {}
    for own in finished:
        for state in own.states:
            kept = {name for name in state.posteriors if place[name] == own.folder}
            if not kept:
                continue
            key = json.dumps(state.suites, sort_keys=True)
            into = states.setdefault(key, _State(state.suites, set(), set()))
            into.commits.update(state.commits)
            into.posteriors.update(kept)
    listed = [
        {
            "suites": state.suites,
            "commits": sorted(state.commits),
            "posteriors": sorted(state.posteriors),
        }
        for state in states.values()
    ]
    return sorted(listed, key=lambda own: own["commits"])


def describe_states(states: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on runs of several states of the code; nothing where there is one.

    Args:
      states: Those of ``Joined.about``.
    """
    if len(states) < 2:
        return ""
    most = max(states, key=lambda own: len(own["posteriors"]))
    others = [own for own in states if own is not most]
    told = [(", ".join(own["posteriors"]), own) for own in others] + [("all others", most)]
    words = "; ".join(f"{names} (commits {', '.join(own['commits'])})" for names, own in told)
    return f" The code of suites of one name changed between runs: {words}."


def _find_runs(folder: str) -> list[str]:
    """Return a run directory, or all that a folder and those in it hold, by name."""
    path = Path(folder).expanduser()
    if any((path / name).exists() for name in ("config.json", "results.json")):
        return [folder]
    # Links to runs count where they lie in the folder itself; deeper ones might lead in circles.
    settings = {*path.glob("*/config.json"), *path.rglob("config.json")}
    inside = sorted(own.parent for own in settings)
    # Runs that were joined are taken where they are named, not where they lie among their own; what
    # holds no runs is refused where it is read.
    return [str(own) for own in inside if not _is_joined(own)] or [folder]


def _is_joined(folder: Path) -> bool:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("join"))


def _read(folder: str) -> _Finished:
    """Return what a run directory, or a folder with the results of one alone, holds."""
    results = _read_json(folder, "results.json")
    data = results["data"]
    records = [PosteriorRecord.from_json(record) for record in data["records"]]
    if data.get("joined"):
        return _read_joined(folder, data, records)
    has_settings = (Path(folder).expanduser() / "config.json").exists()
    config = _read_json(folder, "config.json") if has_settings else results["config"]
    noted, environment = results.get("sources", {}), results.get("environment", {})
    state = _State(
        {key: value for key, value in noted.items() if key.startswith(_SUITE)},
        {str(environment.get("commit", "unknown"))[:7]},
        {record.name for record in records},
    )
    return _Finished(
        folder,
        False,
        data["posteriors"],
        records,
        {key: config.get(key) for key in _JUDGED_BY},
        {key: value for key, value in noted.items() if key.startswith(_DATA)},
        [state],
        1,
        float(results.get("seconds", 0.0)),
        environment,
    )


def _read_joined(folder: str, data: dict[str, Any], records: list[PosteriorRecord]) -> _Finished:
    about = data["joined"]
    if missing := {"judged", "data", "states"} - about.keys():
        raise ValueError(
            f"--join: {folder} joins others itself, and does not say by what they were judged "
            f"({', '.join(sorted(missing))}): name those that it joins."
        )
    return _Finished(
        folder,
        True,
        data["posteriors"],
        records,
        about["judged"],
        about["data"],
        [
            _State(own["suites"], set(own["commits"]), set(own["posteriors"]))
            for own in about["states"]
        ],
        about["runs"],
        about["seconds"],
        about["environment"],
    )


def _read_json(folder: str, name: str) -> dict[str, Any]:
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
