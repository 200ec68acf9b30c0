"""Rungs without a training: the folds, the recalibration and its test."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from ssl2_bids.settings import BUNDLED, RECALIBRATED
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.decision import (
    LEAST_WITHIN,
    MIN_DICE,
    Decision,
    ScorePair,
    best_dice,
    decide,
    gain_of,
    in_words,
    least_gain,
    may_lower,
)
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.first_results import stored_by_another
from ssl2_bids.workflows.adaptation.ladder import Labelled
from ssl2_bids.workflows.adaptation.plan import SLICES, fold_count
from ssl2_bids.workflows.adaptation.predictions import first_probability
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.scores import LabelScores, Row
from ssl2_bids.workflows.adaptation.slice_blocks import block_count
from ssl2_bids.workflows.adaptation.state import Work

log = logging.getLogger('ssl2_bids')

WITHIN = 'tested on slices of a single participant: evidence within one person'
IN_ANY_CASE = 'calibrated whatever the test gives'
KEPT = 'the threshold of the start model stays'
NOT_TESTED = (
    'not tested: lesions in a single slice, or in its neighbours alone, leave nothing for a test, '
    'nor does a single lesion'
)
AGAIN_FIRST = (
    '; before that {name} segments {count} of them again, in the time of the participant level'
)
ON_TWIN = 'recalibrated on {people} people of the scanner twin, without a test on real scans'
AT_LEAST = 'the scanner twin asks for a move of the threshold by at least {move:+.2f}'
LOWERED = (
    'a lower threshold would mark more by the evidence of simulated lesions alone: '
    'without a label it is not lowered'
)


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder after its test.

    Attributes
    ----------
    rows : out-of-fold scores, before and after.
    minutes : of the trainings of its test, and of that of the final model where it was trained.
    recalibration : fitted on all labelled participants that are not held out.
    """

    name: str
    rows: tuple[Row, ...]
    minutes: float
    recalibration: Recalibration


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation.

    Attributes
    ----------
    rung : the one that was taken, or of whose scores ``rows`` are.
    rows : before and after by this rung; participants held out come last.
    network : the adapted one where it was accepted, else that of the start model.
    share : weight of the trained network in its average with the start model, 0 to 1.
    recalibration : of the rung that was taken.
    peers : further networks of the folds, for disagreement.
    rungs : all that were tested, the start model first.
    """

    decision: Decision
    rung: str
    rows: tuple[Row, ...]
    network: nn.Module
    share: float
    recalibration: Recalibration
    peers: tuple[nn.Module, ...]
    rungs: tuple[Rung, ...]


def recalibrate(work: Work) -> Adapted:
    """The start model recalibrated, whatever the test gives: that is stated as evidence.

    With lesions of one participant alone the threshold moves only where what was left out of it
    gains by that, and downwards only with a large gain (see :func:`may_lower`). Labels that fit no
    mask, with whatever threshold, move none.
    """
    rungs, _ = test_untrained(work, make_folds(work), None)
    taken = rungs[-1]
    recalibration, pairs = taken.recalibration, scoring.pairs_of(taken.rows)
    decision = decide(pairs, RECALIBRATED) if pairs else Decision(True, NOT_TESTED)
    reason = decision.reason if decision.accepted else f'{IN_ANY_CASE}: {decision.reason}'
    of_one = work.adaptation.on_slices or len({pair.participant for pair in pairs}) < 2
    uncertain = of_one and (gain_of(pairs) < LEAST_WITHIN or not may_lower(pairs))
    if uncertain or best_dice(pairs) < MIN_DICE:
        recalibration = recalibration.with_first_masks()
        reason = f'{reason}; {KEPT}'
    if work.adaptation.on_slices and pairs:
        reason = f'{reason}; {WITHIN}'
    return Adapted(
        Decision(True, reason),
        taken.name,
        taken.rows,
        work.network,
        0.0,
        recalibration,
        (),
        tuple(rung for rung in rungs if rung.rows),
    )


def recalibrate_on_twin(work: Work) -> Adapted:
    """The start model recalibrated on people of the scanner twin; tested on them alone."""
    recalibration, pairs, kept = fit_to_twin(work)
    tested = in_words(pairs, RECALIBRATED)
    reason = f'{ON_TWIN.format(people=len(work.twins))}; on simulated people {tested}{kept}'
    work.show(f'accepted: {reason}')
    return Adapted(
        Decision(True, reason), RECALIBRATED, (), work.network, 0.0, recalibration, (), ()
    )


def move_of_twin(work: Work) -> float:
    """What people of the scanner twin ask for the threshold: a move of its logit, 0 or above.

    With few labels this is the least move. At simulated sites the larger one of the two moves,
    that of one to three labelled people and that of the twin, was better than either alone and
    than their mean (docs/evidence/scanner-twin.md).
    """
    move = fit_to_twin(work)[0].move
    work.show(
        AT_LEAST.format(move=move) if move else 'the scanner twin asks for no higher threshold'
    )
    return move


def fit_to_twin(work: Work) -> tuple[Recalibration, list[ScorePair], str]:
    """What is used of a recalibration on people of the twin, their scores, and why not all."""
    people = of_twin(work)
    rungs, _ = test_untrained(people, make_folds(people), None)
    pairs = scoring.pairs_of(rungs[-1].rows)
    recalibration, kept = without_labels(rungs[-1].recalibration, pairs)
    return recalibration, pairs, kept


def without_labels(fitted: Recalibration, pairs: Sequence[ScorePair]) -> tuple[Recalibration, str]:
    """What is used of a recalibration that was fitted to simulated people, and why not all of it.

    The threshold moves only upwards, and only if simulated people who were left out gain by it.
    That a model marks too much is seen in tissue without lesions, which site and twin have in
    common. That it marks too little is seen in lesions alone, and those of the twin are drawn:
    at simulated sites each lower threshold made masks worse (docs/evidence/scanner-twin.md).
    """
    if fitted.move < 0:
        return fitted.with_first_masks(), f'; {LOWERED}; {KEPT}'
    if gain_of(pairs) < least_gain(pairs, RECALIBRATED):
        return fitted.with_first_masks(), f'; {KEPT}'
    return fitted, ''


def of_twin(work: Work) -> Work:
    """The people of the scanner twin as those of a site of their own, all of them labelled."""
    assert work.twin is not None
    folder = work.folder / 'twin'
    folder.mkdir(exist_ok=True)
    settings = replace(work.adaptation.settings, holdout=(), folds=None)
    return replace(
        work,
        adaptation=replace(work.adaptation, settings=settings, cases=tuple(work.twin.cases)),
        people=work.twin.people,
        annotations=work.twin.annotations,
        folder=folder,
        show=lambda line: log.info('scanner twin: %s', line),
        twin=None,
        fold_of={},
    )


def make_folds(work: Work) -> dict[str, set[str]]:
    """By name of the fold, the participants who are left out, wholly or some slices of them."""
    loads: dict[str, float] = {}
    for one in work.labelled:
        if one.case.participant not in work.held:
            volume = scoring.reference_volume(work.annotations[one.case.name])
            loads[one.case.participant] = loads.get(one.case.participant, 0.0) + volume
    if not loads:
        return {}
    count = fold_count(work.adaptation)
    if work.adaptation.on_slices:
        count = min(case.blocks for case in labelled_cases(work, {}))
        return {f'{SLICES}-{n}': set(loads) for n in range(1, count + 1) if count > 1}
    numbers = training.assign_folds(loads, count, seed=work.training.seed)
    work.fold_of = {name: str(number) for name, number in numbers.items()}
    return {
        str(n): {name for name, number in numbers.items() if number == n}
        for n in range(1, count + 1)
    }


def labelled_of(work: Work, participants: set[str]) -> list[PreparedSession]:
    """The labelled sessions of some participants."""
    return [one for one in work.labelled if one.case.participant in participants]


def labelled_cases(work: Work, folds: dict[str, set[str]]) -> list[Labelled]:
    """The labelled cases that are tested, each with the fold that leaves it out."""
    if work.adaptation.on_slices:
        people = [one for one in work.labelled if one.case.participant not in work.held]
        return [Labelled(one, SLICES, block_count(work, one)) for one in people]
    return [Labelled(one, name) for name, out in folds.items() for one in labelled_of(work, out)]


def test_untrained(
    work: Work, folds: dict[str, set[str]], least_move: float | None
) -> tuple[list[Rung], dict[str, LabelScores]]:
    """The start model and its recalibration; and the scores of the start model.

    Lesions in too few slices have no scores: nothing is left of them for a test.

    Parameters
    ----------
    least_move : see :func:`ladder.test`.
    """
    cases, began = labelled_cases(work, folds), time.monotonic()
    if not cases:
        return [], {}
    card = work.adaptation.card
    again = [c for c in cases if stored_by_another(c.one.case.result, card)]
    first = AGAIN_FIRST.format(name=card.name, count=len(again)) if again else ''
    work.show(
        f'recalibration on {counted(len(cases), "labelled session")}, '
        f'without training: about {ladder.expected_seconds(cases):.2g} seconds{first}'
    )
    tested = ladder.test(work, cases, first_probability(work), least_move)
    work.test_seconds = time.monotonic() - began
    minutes = work.test_seconds / 60
    before, shown = tested.plain, [case for case in cases if case.blocks != 1]
    rungs = [
        Rung(BUNDLED, tuple(ladder.rows_of(shown, tested, before, before)), 0.0, Recalibration()),
        Rung(
            RECALIBRATED,
            tuple(
                replace(row, fitted=tested.with_fitted[row.case])
                for row in ladder.rows_of(shown, tested, before, tested.recalibrated)
            ),
            minutes,
            tested.fitted,
        ),
    ]
    for row in rungs[1].rows:
        work.show(
            f'{row.case}: Dice {row.before.dice:.3f} by the start model, {row.after.dice:.3f} '
            'recalibrated without this participant'
            if row.fold != SLICES
            else f'{row.case}: Dice {row.before.dice:.3f} by the start model, '
            f'{row.after.dice:.3f} recalibrated on other slices'
        )
    if not shown:
        work.show(NOT_TESTED)
    work.show(f'recalibration: {60 * minutes:.0f} seconds')
    return rungs, before
