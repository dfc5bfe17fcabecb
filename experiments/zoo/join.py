"""Put the posteriors of several finished runs of this study into one table; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bnn_adv.data import DATASETS
from experiments.zoo.config import TRAININGS, Config
from experiments.zoo.methods import METHODS
from experiments.zoo.record import PosteriorRecord
from experiments.zoo.runs import DATA, SUITE, Finished, Part, State, find_runs, read_finished


class Joined(NamedTuple):
    """Posteriors of several runs.

    found: Of every posterior what ``measure_all`` found, with the ``settings`` of its training, by
      data set, training and method.
    records: Its record, with the command that trained it.
    about: What is known of the runs: ``judged``: settings by which all were judged; ``data``:
      hashes of the inputs; ``parts``: what each run took; ``runs``: how many; ``seconds``: of all,
      in a part of several of those that were replaced too; ``environment``: of the longest, as
      far as is known; ``states``: of every state of the code of attacks its hashes,
      the commits and the posteriors.
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
    finished = [read_finished(run) for run in find_runs(folders)]
    if not finished:
        raise ValueError("--join names no run.")
    place = _choose(finished)
    own = [(one, part) for one in finished for part in _keep_parts(one, place)]
    _check_alike(own, across_code=across_code)
    parts = [part for _, part in own]
    kept = [(place[name], name) for one in finished for name in one.records if place[name] is one]
    found = [one.found[name] for one, name in kept]
    records = [one.records[name] for one, name in kept]
    order = sorted(range(len(found)), key=lambda number: _rank(found[number]))
    longest = max(parts, key=lambda part: part.seconds / part.runs)
    return Joined(
        [found[number] for number in order],
        [records[number] for number in order],
        {
            # One command is one run; a part of several says no more of those that were replaced.
            "runs": len({record.command for record in records}),
            "seconds": sum(part.seconds for part in parts),
            "environment": longest.environment,
            "judged": own[0][0].judged,
            "data": {key: value for one, part in own for key, value in _list_data(one, part)},
            "states": _list_states(parts),
            "parts": [part.to_json() for part in parts],
        },
    )


def _choose(finished: Sequence[Finished]) -> dict[str, Finished]:
    """Return from where each posterior comes: runs go before what was joined before."""
    place: dict[str, Finished] = {}
    for is_joined in (False, True):
        replaced = set(place)
        for one in (one for one in finished if one.is_joined is is_joined):
            for name in one.records:
                if name in replaced:
                    continue
                if name in place:
                    raise ValueError(
                        f"--join: {name} is in {place[name].folder} and in {one.folder}: leave one "
                        "of them out."
                    )
                place[name] = one
    return place


def _keep_parts(one: Finished, place: Mapping[str, Finished]) -> Iterator[Part]:
    """Yield what of a folder is in the table."""
    names = {name for name in one.records if place[name] is one}
    for part in one.parts:
        if (kept := part.keep(names)).posteriors:
            yield kept


def _check_alike(own: Sequence[tuple[Finished, Part]], *, across_code: bool) -> None:
    """Raise where rows of one table would not say the same thing."""
    known: dict[str, tuple[Any, str]] = {}
    for one, part in own:
        compared = [one.judged, dict(_list_data(one, part)), _list_radii(one, part)]
        if not across_code:
            compared += [state.suites for state in part.states]
        for key, value in (pair for part in compared for pair in part.items()):
            before, folder = known.setdefault(key, (value, one.folder))
            if before != value:
                more = " --join_across_code joins them all the same."
                there = "also" if folder == one.folder else f"in {folder}"
                raise ValueError(
                    f"--join: {key} is {value!r} in {one.folder} and {before!r} {there}: one "
                    "table needs posteriors that were judged alike."
                    f"{more if key.startswith(SUITE) else ''}"
                )


def _list_data(one: Finished, part: Part) -> Iterator[tuple[str, str]]:
    """Yield the hashes of the inputs of a part's posteriors."""
    for name in part.posteriors:
        key = f"{DATA}{one.found[name]['dataset']}"
        yield key, one.data[key]


def _list_radii(one: Finished, part: Part) -> dict[str, Any]:
    every = [one.found[name] for name in part.posteriors]
    return {
        f"radii of {own['dataset']}": [radius["epsilon"] for radius in own["radii"]]
        for own in every
    }


def _rank(one: dict[str, Any]) -> tuple[int, ...]:
    """Return a posterior's place in the table: what can be compared stands together."""
    datasets = dict.fromkeys((*Config().datasets, *DATASETS))
    orders = {"dataset": datasets, "training": TRAININGS, "method": METHODS}
    return tuple(list(order).index(one[name]) for name, order in orders.items())


def _list_states(parts: Sequence[Part]) -> list[dict[str, Any]]:
    states: list[State] = []
    for own in (state for part in parts for state in part.states):
        known = next((s for s in states if _is_same(s, own)), State({}, (), ()))
        states = [state for state in states if state is not known]
        states.append(
            State(
                {**known.suites, **own.suites},
                tuple(sorted({*known.commits, *own.commits})),
                tuple(sorted({*known.posteriors, *own.posteriors})),
            )
        )
    listed = [
        {**own._asdict(), "commits": [*own.commits], "posteriors": [*own.posteriors]}
        for own in states
    ]
    return sorted(listed, key=lambda own: own["commits"])


def _is_same(known: State, own: State) -> bool:
    """Return whether no suite of both is of other code."""
    shared = known.suites.keys() & own.suites.keys()
    return bool(shared) and all(known.suites[name] == own.suites[name] for name in shared)


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
