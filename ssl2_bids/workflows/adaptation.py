"""Adapting a model to a site: leave people out and test, decide, train with everybody."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from torch import nn

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.training import adapt as training
from ssl2_bids.training.decision import Decision, decide
from ssl2_bids.training.views import AXIAL
from ssl2_bids.workflows import adaptation_scores as scoring
from ssl2_bids.workflows.adaptation_cache import Prepared
from ssl2_bids.workflows.adaptation_plan import fold_count
from ssl2_bids.workflows.adaptation_scores import Row, Scores
from ssl2_bids.workflows.adaptation_work import Work, fit_into_time, train_one
from ssl2_bids.workflows.adaptation_workers import train_side_by_side

FINAL, SLICES, HOLDOUT = 'final', 'slices', 'holdout'


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation.

    Attributes
    ----------
    network : the adapted one where it was accepted, else that of the start.
    peers : further networks of the folds, for disagreement.
    """

    decision: Decision
    rows: tuple[Row, ...]
    network: nn.Module
    peers: tuple[nn.Module, ...]


def run(work: Work) -> Adapted:
    """Test on people left out, decide, and train the model of everybody if it is worth it."""
    folds = make_folds(work)
    trainings = len(folds) + 1
    work.training = fit_into_time(work, trainings)
    rows: list[Row] = []
    peers: list[nn.Module] = []
    if work.adaptation.settings.folds == SLICES and folds:
        rows, peers = leave_slices_out(work, folds)
    elif folds:
        jobs = {
            name: (seen_without(work, out), labelled_of(work, out)) for name, out in folds.items()
        }
        # the last one is for nothing if the model is refused; else nobody waits for it alone
        train_side_by_side(work, jobs | {FINAL: (seen_without(work, set()), [])})
        rows, peers = leave_people_out(work, folds)
    decision = decide(scoring.pairs_of(rows), always=work.adaptation.settings.accept == 'always')
    work.say(f'{"accepted" if decision.accepted else "not accepted"}: {decision.reason}')
    if not decision.accepted:
        return Adapted(decision, tuple(rows), work.network, tuple(peers))
    network = train_one(work, FINAL, [one.read() for one in seen_without(work, set())])
    held = labelled_of(work, set(work.held))
    rows += [tested(work, one, network, HOLDOUT) for one in held]
    return Adapted(decision, tuple(rows), network, tuple(peers))


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


def seen_without(work: Work, out: set[str]) -> list[Prepared]:
    """Everybody whom a training sees that leaves some participants out."""
    unseen = out.union(work.held)
    return [one for one in work.people if one.case.participant not in unseen]


def labelled_of(work: Work, participants: set[str]) -> list[Prepared]:
    """The labelled sessions of some participants."""
    return [one for one in work.labelled if one.case.participant in participants]


def leave_people_out(work: Work, folds: dict[str, set[str]]) -> tuple[list[Row], list[nn.Module]]:
    """Train without some participants, test on them; no image of theirs is seen by any loss."""
    rows: list[Row] = []
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
        rows += [tested(work, one, network, name) for one in left_out]
    return rows, networks


def leave_slices_out(work: Work, folds: dict[str, set[str]]) -> tuple[list[Row], list[nn.Module]]:
    """Train without some slices of the only labelled participant, put the predictions together."""
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
    judged, drawn = np.asarray(found.annotated) > 0, np.asarray(found.label) > 0
    inside = judged & (np.asarray(found.brain) > 0)
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
    networks, probability = [], np.zeros(judged.shape, np.float32)
    for name, block in zip(folds, blocks, strict=True):
        # other sessions of the person would show the same lesions
        seen = [*others, training.without_slices(found, block)]
        network = train_one(work, name, seen)
        networks.append(network)
        whole = scoring.probability_of(network, labelled[0], work.adaptation.card, work.device)
        at = [slice(None)] * 3
        for k in block.tolist():
            at[AXIAL] = slice(k, k + 1)
            probability[tuple(at)] = whole[tuple(at)]
    after = _score(work, labelled[0], probability)
    before_map = scoring.probability_of(
        work.network, labelled[0], work.adaptation.card, work.device
    )
    return [
        _row(work, labelled[0], SLICES, _score(work, labelled[0], before_map), after)
    ], networks


def tested(work: Work, one: Prepared, network: nn.Module, fold: str) -> Row:
    """A labelled case under the model of the start and an adapted one; kept for a rerun."""
    kept = work.folder / f'scores-{one.case.name}-{fold}.json'
    if kept.is_file():
        found = json.loads(kept.read_text(encoding='utf-8'))
        return _row(
            work, one, fold, *(scoring.from_numbers(found[k]) for k in ('before', 'after'))
        )
    card, device = work.adaptation.card, work.device
    scores: list[Scores] = []
    for model in (work.network, network):
        model.to(device)
        scores.append(_score(work, one, scoring.probability_of(model, one, card, device)))
    write_json(kept, dict(zip(('before', 'after'), map(scoring.as_numbers, scores), strict=True)))
    row = _row(work, one, fold, *scores)
    work.say(
        f'{one.case.name}: Dice {row.before.dice:.3f} before, {row.after.dice:.3f} after '
        f'({"held out" if fold == HOLDOUT else f"left out of training {fold}"})'
    )
    return row


def _score(work: Work, one: Prepared, probability: np.ndarray) -> Scores:
    return scoring.score(
        probability,
        one,
        work.annotations[one.case.name],
        threshold=work.adaptation.card.threshold,
        minimum_volume=work.minimum_volume,
    )


def _row(work: Work, one: Prepared, fold: str, before: Scores, after: Scores) -> Row:
    share, volume = scoring.reference_of(one, work.annotations[one.case.name])
    names = one.case.result.names
    return Row(one.case.name, names.subject, names.session, fold, share, volume, before, after)
