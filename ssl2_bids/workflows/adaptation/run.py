"""Adapting a model to a site: leave participants out and test, decide, train with all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from ssl2_bids.errors import UsageError
from ssl2_bids.settings import BUNDLED, RECALIBRATED
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import ALL, LAST
from ssl2_bids.training.adaptation.decision import (
    SHARES,
    Decision,
    choose,
)
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import AXIAL
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.ladder import Probability
from ssl2_bids.workflows.adaptation.parallel import train_side_by_side
from ssl2_bids.workflows.adaptation.plan import SLICES
from ssl2_bids.workflows.adaptation.predictions import (
    first_probability,
    of_files,
    of_network,
    predict,
    prediction_file,
)
from ssl2_bids.workflows.adaptation.prepare import PreparedSession, keep
from ssl2_bids.workflows.adaptation.scores import LabelScores, Row
from ssl2_bids.workflows.adaptation.slice_blocks import block_count, too_few_slices
from ssl2_bids.workflows.adaptation.state import RUNGS_OF, Work, layers_of, train_one
from ssl2_bids.workflows.adaptation.timing import fit_into_time
from ssl2_bids.workflows.adaptation.twin.recalibrate import recalibrated_on_twins, trained_twins
from ssl2_bids.workflows.adaptation.untrained import (
    AT_LEAST,
    WITHIN,
    Adapted,
    Rung,
    labelled_cases,
    labelled_of,
    make_folds,
    move_of_twin,
    recalibrate_on_twin,
    test_untrained,
)

FINAL, HOLDOUT = 'final', 'holdout'


def run(work: Work) -> Adapted:
    """Test the rungs on participants left out, decide, and train the final model if need be."""
    settings = work.adaptation.settings
    if work.adaptation.recalibrates_on_twin:
        return recalibrate_on_twin(work)
    folds = make_folds(work)
    least_move = move_of_twin(work) if work.twin and work.annotations else None
    rungs, before = test_untrained(work, folds, least_move)
    peers: list[nn.Module] = []
    # of a label that cannot be tested nothing is trained, unless a trained rung is used anyway
    needed = folds or not work.annotations or (settings.rung and settings.accept == 'always')
    if work.trains and (not needed or settle_time(work, folds)):
        trained, peers = test_trained(work, folds, before)
        rungs += trained
    asked = {r.name: r for r in rungs if r.name != BUNDLED and settings.rung in (None, r.name)}
    if asked:
        tests = {name: scoring.pairs_of(rung.rows) for name, rung in asked.items()}
        choice = choose(tests, always=settings.accept == 'always')
        taken, decision = asked[choice.rung], choice.decision
        if work.adaptation.on_slices and taken.rows:
            decision = replace(decision, reason=f'{decision.reason}; {WITHIN}')
        if least_move and taken.name == RECALIBRATED:
            raised = AT_LEAST.format(move=least_move)
            decision = replace(decision, reason=f'{decision.reason}; {raised}')
    else:
        taken, decision = rungs[0], Decision(False, 'the start model was asked for')
    work.show(f'{"accepted" if decision.accepted else "not accepted"}: {decision.reason}')
    share = SHARES.get(taken.name, 0.0) if decision.accepted else 0.0
    network, probability = work.network, first_probability(work)
    if share:
        seen = [one.read() for one in seen_of(work, set(), layers_for(taken.name))]
        last = train_one(work, FINAL, seen, layers=layers_for(taken.name))
        network = training.between(work.network, last, share)
        probability = of_network(work, network)
    recalibration = taken.recalibration if decision.accepted else Recalibration()
    if share and work.twin and not work.annotations:
        recalibration = recalibrated_on_twins(work, network)
    rungs = [
        replace(r, minutes=training_minutes(work, layers_for(r.name))) if r.name in SHARES else r
        for r in rungs
    ]
    rows = list(taken.rows)
    for one in labelled_of(work, set(work.held)):
        if decision.accepted:
            rows.append(score_held(work, one, probability, recalibration))
        else:
            work.show(f'{one.case.name}: held out, and not scored: the start model stays')
    return Adapted(
        decision,
        taken.name,
        tuple(rows),
        network,
        share,
        recalibration,
        tuple(peers),
        tuple(r for r in rungs if r.rows),
    )


def settle_time(work: Work, folds: dict[str, set[str]]) -> bool:
    """Settle the steps of the trainings; False, with a message, if there is no time for any.

    Raises
    ------
    UsageError : there is no time, and nothing but a training was asked for.
    """
    try:
        work.training = fit_into_time(work, len(folds) + 1)
    except UsageError as error:
        if not work.annotations or work.adaptation.settings.rung is not None:
            raise
        work.show(f'no training: {error} The recalibration needs none and is tested alone.')
        work.untrained = error.message
        return False
    return True


def test_trained(
    work: Work, folds: dict[str, set[str]], before: dict[str, LabelScores]
) -> tuple[list[Rung], list[nn.Module]]:
    """The rungs that need a training, and the networks of the folds."""
    names = [name for layers in layers_of(work) for name in RUNGS_OF[layers]]
    if not folds:
        return [Rung(name, (), 0.0, Recalibration()) for name in names], []
    peers: list[nn.Module] = []
    if not work.adaptation.on_slices:
        jobs = {
            (name, layers): (
                seen_of(work, out, layers),
                labelled_of(work, out) if layers == ALL else [],
            )
            for layers in layers_of(work)
            for name, out in folds.items()
        }
        # the last one is in vain if its rung is not taken; else it takes no time of its own
        layers = layers_of(work)[-1]
        jobs[FINAL, layers] = (seen_of(work, set(), layers), [])
        train_side_by_side(work, jobs)
    for layers in layers_of(work):
        leave_out = leave_slices_out if work.adaptation.on_slices else leave_people_out
        peers = leave_out(work, folds, layers)
    cases, rungs = labelled_cases(work, folds), []
    for name in names:
        tested = ladder.test(work, cases, of_files(work, name, cases), None)
        rows, recalibration = ladder.better_of(cases, tested, before, name)
        rungs.append(Rung(name, tuple(rows), 0.0, recalibration))
    for number, case in enumerate(cases):
        after = ', '.join(f'{rung.rows[number].after.dice:.3f} {rung.name}' for rung in rungs)
        row = rungs[0].rows[number]
        work.show(
            f'{row.case}: Dice {row.before.dice:.3f} by the start model, {after} '
            f'(left out of training {case.fold})'
        )
    return rungs, peers


def layers_for(rung: str) -> str:
    """The layers whose training a rung needs."""
    return next((layers for layers, rungs in RUNGS_OF.items() if rung in rungs), ALL)


def training_minutes(work: Work, layers: str) -> float:
    """Of the trainings of these layers: those of the test, and the final one where it was run."""
    seconds = [
        history.seconds
        for name, history in work.histories.items()
        if name.startswith(f'{LAST}-') == (layers == LAST)
    ]
    return sum(seconds) / 60


def seen_without(work: Work, out: set[str]) -> list[PreparedSession]:
    """The participants of a training that leaves some out."""
    unseen = out.union(work.held)
    return [one for one in work.people if one.case.participant not in unseen]


def seen_of(work: Work, out: set[str], layers: str) -> list[PreparedSession]:
    """The participants of a training of some layers: of the last ones the labelled alone.

    And those of the scanner twin, who are labelled.
    """
    seen = seen_without(work, out)
    if layers != ALL:
        seen = [one for one in seen if one.case.name in work.annotations]
    return [*seen, *trained_twins(work)]


def leave_people_out(work: Work, folds: dict[str, set[str]], layers: str) -> list[nn.Module]:
    """Train without some participants, predict them; no image of theirs is seen by any loss.

    Returns
    -------
    The trained networks.
    """
    networks: list[nn.Module] = []
    for name, out in folds.items():
        left_out = labelled_of(work, out)
        network = train_one(
            work,
            name,
            [one.read() for one in seen_of(work, out, layers)],
            [one.read() for one in left_out] if layers == ALL else [],
            layers=layers,
        )
        networks.append(network)
        for rung in RUNGS_OF[layers]:
            candidate = training.between(work.network, network, SHARES[rung])
            for one in left_out:
                path = prediction_file(work, one, name, rung)
                if not path.is_file():
                    keep(path, predict(work, one, candidate))
    return networks


def leave_slices_out(work: Work, folds: dict[str, set[str]], layers: str) -> list[nn.Module]:
    """Train without some slices of the only labelled participant, put the predictions together.

    Returns
    -------
    The trained networks.
    """
    (one,) = (one for one in work.labelled if one.case.participant not in work.held)
    # other sessions of the person would show the same lesions
    others = [other.read() for other in seen_of(work, {one.case.participant}, layers)]
    found = one.read()
    annotation, brain = work.annotations[one.case.name], scoring.brain_of(one)
    try:
        blocks = slice_blocks(annotation, brain, found, one.affine, len(folds))
    except ValueError:
        raise too_few_slices(one, block_count(work, one), len(folds)) from None
    networks = []
    probabilities = {rung: np.zeros(found.brain.shape, np.float32) for rung in RUNGS_OF[layers]}
    for name, block in zip(folds, blocks, strict=True):
        seen = [*others, training.without_slices(found, block)]
        network = train_one(work, name, seen, layers=layers)
        networks.append(network)
        at = [slice(None)] * 3
        for rung in RUNGS_OF[layers]:
            candidate = training.between(work.network, network, SHARES[rung])
            whole = predict(work, one, candidate)
            for k in block.tolist():
                at[AXIAL] = slice(k, k + 1)
                probabilities[rung][tuple(at)] = whole[tuple(at)]
    for rung, probability in probabilities.items():
        keep(prediction_file(work, one, SLICES, rung), probability)
    return networks


def slice_blocks(
    annotation: Annotation, brain: Volume, found: Participant, affine: np.ndarray, folds: int
) -> list[np.ndarray]:
    """The axial slices of the network's grid that each fold leaves out.

    Of acquired slices that are thicker than those of the network each belongs to one fold: all
    slices of the network that it is nearest to show the same tissue.

    Parameters
    ----------
    annotation, brain : on the reference's grid.
    found : the same participant on the network's grid.
    affine : (4, 4), voxel indices of that grid to RAS+ mm.

    Raises
    ------
    ValueError : there are fewer annotated slices than folds.
    """
    inside = (annotation.extent.data > 0) & (brain.data > 0)
    acquired = np.asarray(inside.any(axis=(0, 1)))
    seen = (np.asarray(found.annotated) > 0) & (np.asarray(found.brain) > 0)
    annotated = np.asarray(seen.any(axis=(0, 1)))
    slices = np.flatnonzero(annotated)
    if acquired.sum() < len(slices):
        lesion = np.asarray(((annotation.label.data > 0) & inside).sum(axis=(0, 1)))
        parts = training.slice_folds(acquired, lesion, folds)
        forward = np.linalg.inv(brain.affine) @ affine
        places = forward[AXIAL, AXIAL] * slices + forward[AXIAL, 3]
        known = np.flatnonzero(acquired)
        nearest = known[np.abs(places[:, None] - known).argmin(axis=1)]
        blocks = [slices[np.isin(nearest, part)] for part in parts]
        if all(len(block) for block in blocks):
            return blocks
    lesion = np.asarray(((np.asarray(found.label) > 0) & seen).sum(axis=(0, 1)))
    return training.slice_folds(annotated, lesion, folds)


def score_held(
    work: Work, one: PreparedSession, probability: Probability, recalibration: Recalibration
) -> Row:
    """A participant held out, by the start model and by the adapted one."""
    first = first_probability(work)
    before, truth = ladder.score_one(work, one, first, Recalibration())
    after, _ = ladder.score_one(work, one, probability, recalibration)
    work.show(
        f'{one.case.name}: Dice {before.dice:.3f} by the start model, {after.dice:.3f} adapted '
        '(held out)'
    )
    names = one.case.result.names
    return Row(one.case.name, names.subject, names.session, HOLDOUT, truth.annotated,
               truth.volume, before, after)  # fmt: skip
