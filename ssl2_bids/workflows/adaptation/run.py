"""Adapting a model to a site: leave participants out and test, decide, train with all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.decision import SHARES, Decision, best_share, decide
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.training.data.views import AXIAL
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.parallel import train_side_by_side
from ssl2_bids.workflows.adaptation.plan import fold_count
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.scores import LabelScores, Row
from ssl2_bids.workflows.adaptation.state import Work, fit_into_time, train_one

FINAL, SLICES, HOLDOUT = 'final', 'slices', 'holdout'
BEFORE = 'before'


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation.

    Attributes
    ----------
    network : the adapted one where it was accepted, else that of the start model.
    share : weight of the trained network in its average with the start model, 0 to 1.
    peers : further networks of the folds, for disagreement.
    """

    decision: Decision
    rows: tuple[Row, ...]
    network: nn.Module
    share: float
    peers: tuple[nn.Module, ...]


def run(work: Work) -> Adapted:
    """Test on participants left out, decide, and train the final model if accepted."""
    folds = make_folds(work)
    trainings = len(folds) + 1
    work.training = fit_into_time(work, trainings)
    tests: list[dict[float, Row]] = []
    peers: list[nn.Module] = []
    if work.adaptation.settings.folds == SLICES and folds:
        tests, peers = leave_slices_out(work, folds)
    elif folds:
        jobs = {
            name: (seen_without(work, out), labelled_of(work, out)) for name, out in folds.items()
        }
        # the last one is in vain if the model is refused; else it takes no time of its own
        train_side_by_side(work, jobs | {FINAL: (seen_without(work, set()), [])})
        tests, peers = leave_people_out(work, folds)
    pairs = {share: scoring.pairs_of([test[share] for test in tests]) for share in SHARES}
    share = best_share(pairs)
    rows = [test[share] for test in tests]
    decision = decide(pairs[share], always=work.adaptation.settings.accept == 'always')
    work.show(f'{"accepted" if decision.accepted else "not accepted"}: {decision.reason}')
    if not decision.accepted:
        return Adapted(decision, tuple(rows), work.network, 0.0, tuple(peers))
    trained = train_one(work, FINAL, [one.read() for one in seen_without(work, set())])
    network = training.between(work.network, trained, share)
    held = labelled_of(work, set(work.held))
    rows += [score_case(work, one, {share: network}, HOLDOUT)[share] for one in held]
    return Adapted(decision, tuple(rows), network, share, tuple(peers))


def make_folds(work: Work) -> dict[str, set[str]]:
    """By name of the fold, the participants who are left out, wholly or some slices of them."""
    loads: dict[str, float] = {}
    for one in work.labelled:
        if one.case.participant not in work.held:
            volume = scoring.reference_of(one, work.annotations[one.case.name])[1]
            loads[one.case.participant] = loads.get(one.case.participant, 0.0) + volume
    if not loads:
        return {}
    count = fold_count(work.adaptation)
    if work.adaptation.settings.folds == SLICES:
        return {f'{SLICES}-{n}': set(loads) for n in range(1, count + 1)}
    numbers = training.assign_folds(loads, count, seed=work.training.seed)
    work.fold_of = {name: str(number) for name, number in numbers.items()}
    return {
        str(n): {name for name, number in numbers.items() if number == n}
        for n in range(1, count + 1)
    }


def seen_without(work: Work, out: set[str]) -> list[PreparedSession]:
    """The participants of a training that leaves some out."""
    unseen = out.union(work.held)
    return [one for one in work.people if one.case.participant not in unseen]


def labelled_of(work: Work, participants: set[str]) -> list[PreparedSession]:
    """The labelled sessions of some participants."""
    return [one for one in work.labelled if one.case.participant in participants]


def leave_people_out(
    work: Work, folds: dict[str, set[str]]
) -> tuple[list[dict[float, Row]], list[nn.Module]]:
    """Train without some participants, test on them; no image of theirs is seen by any loss.

    Returns
    -------
    For each labelled case its scores by share of the way to the trained weights, and the trained
    networks.
    """
    tests: list[dict[float, Row]] = []
    networks: list[nn.Module] = []
    for name, out in folds.items():
        left_out = labelled_of(work, out)
        network = train_one(
            work,
            name,
            [one.read() for one in seen_without(work, out)],
            [one.read() for one in left_out],
        )
        networks.append(network)
        candidates = candidates_of(work, network)
        tests += [score_case(work, one, candidates, name) for one in left_out]
    return tests, networks


def candidates_of(work: Work, network: nn.Module) -> dict[float, nn.Module]:
    """By share, networks on the way from the start to a trained one."""
    return {share: training.between(work.network, network, share) for share in SHARES}


def leave_slices_out(
    work: Work, folds: dict[str, set[str]]
) -> tuple[list[dict[float, Row]], list[nn.Module]]:
    """Train without some slices of the only labelled participant, put the predictions together.

    Returns
    -------
    As of :func:`leave_people_out`, of one case.
    """
    (person,) = set().union(*folds.values())
    others = [
        one.read()
        for one in work.people
        if one.case.participant != person and one.case.participant not in work.held
    ]
    own = [one for one in work.people if one.case.participant == person]
    labelled = [one for one in own if one.case.name in work.annotations]
    if len(labelled) > 1:
        raise UsageError(
            f'{len(labelled)} sessions of the only labelled participant have labels',
            advice='Give --folds slices with the labels of one session.',
        )
    found = labelled[0].read()
    extent, drawn = np.asarray(found.annotated) > 0, np.asarray(found.label) > 0
    inside = extent & (np.asarray(found.brain) > 0)
    try:
        lesion = np.asarray((drawn & inside).sum(axis=(0, 1)))
        blocks = training.slice_folds(np.asarray(inside.any(axis=(0, 1))), lesion, len(folds))
    except ValueError:
        raise DataError(
            f'{int(inside.any(axis=(0, 1)).sum())} annotated slices cannot be split into '
            f'{len(folds)} parts',
            advice=f'Annotate at least {len(folds)} slices.',
            path=labelled[0].case.labels[0].path,
        ) from None
    networks = []
    probabilities = {share: np.zeros(extent.shape, np.float32) for share in SHARES}
    for name, block in zip(folds, blocks, strict=True):
        # other sessions of the person would show the same lesions
        seen = [*others, training.without_slices(found, block)]
        network = train_one(work, name, seen)
        networks.append(network)
        at = [slice(None)] * 3
        for share, candidate in candidates_of(work, network).items():
            whole = _predict(work, labelled[0], candidate)
            for k in block.tolist():
                at[AXIAL] = slice(k, k + 1)
                probabilities[share][tuple(at)] = whole[tuple(at)]
    before = _score(work, labelled[0], _predict(work, labelled[0], work.network))
    rows = {
        share: _row(work, labelled[0], SLICES, before, _score(work, labelled[0], probability))
        for share, probability in probabilities.items()
    }
    return [rows], networks


def score_case(
    work: Work, one: PreparedSession, networks: Mapping[float, nn.Module], fold: str
) -> dict[float, Row]:
    """A labelled case under the start model and adapted models; kept for a rerun."""
    kept = work.folder / f'scores-{one.case.name}-{fold}.json'
    found = json.loads(kept.read_text(encoding='utf-8')) if kept.is_file() else {}
    models = {BEFORE: work.network, **{f'{share:g}': n for share, n in networks.items()}}
    missing = {name: network for name, network in models.items() if name not in found}
    for name, network in missing.items():
        found[name] = scoring.as_numbers(_score(work, one, _predict(work, one, network)))
    if missing:
        write_json(kept, found)
    before = scoring.from_numbers(found[BEFORE])
    rows = {
        share: _row(work, one, fold, before, scoring.from_numbers(found[f'{share:g}']))
        for share in networks
    }
    after = ', '.join(f'{row.after.dice:.3f} {way_of(share)}' for share, row in rows.items())
    work.show(
        f'{one.case.name}: Dice {before.dice:.3f} before, {after} '
        f'({"held out" if fold == HOLDOUT else f"left out of training {fold}"})'
    )
    return rows


def way_of(share: float) -> str:
    """What a share is called where people read it."""
    return 'after' if share == 1 else f'after {share:.0%} of the change of the weights'


def _predict(work: Work, one: PreparedSession, network: nn.Module) -> np.ndarray:
    network.to(work.device)
    return probability_of(network, one.read(), work.adaptation.card, work.device)


def _score(work: Work, one: PreparedSession, probability: np.ndarray) -> LabelScores:
    return scoring.score(
        probability,
        one,
        work.annotations[one.case.name],
        threshold=work.adaptation.card.threshold_for(one.case.images),
        minimum_volume=work.minimum_volume,
    )


def _row(
    work: Work, one: PreparedSession, fold: str, before: LabelScores, after: LabelScores
) -> Row:
    share, volume = scoring.reference_of(one, work.annotations[one.case.name])
    names = one.case.result.names
    return Row(one.case.name, names.subject, names.session, fold, share, volume, before, after)
