"""The rungs of the ladder under test: out-of-fold scores of each, plain and recalibrated.

Whoever is tested has no part in the recalibration: it is fitted on the out-of-fold probabilities
of the other labelled participants, or of the other slices where only one is labelled. The trained
networks that gave the others' probabilities may have seen the label of the one who is tested;
through the few numbers of a recalibration that is without weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl2_bids.training.adaptation import recalibration as fitting
from ssl2_bids.training.adaptation.adapt import slice_folds
from ssl2_bids.training.adaptation.decision import (
    ScorePair,
    decide,
    gain_of,
    standard_error,
)
from ssl2_bids.training.adaptation.recalibration import Counts, Recalibration
from ssl2_bids.training.data.views import AXIAL
from ssl2_bids.volume import Volume, read_grid
from ssl2_bids.voxel_grid import Box, bounding_box
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.scores import LabelScores, Row, Truth
from ssl2_bids.workflows.adaptation.slice_blocks import too_few_slices
from ssl2_bids.workflows.adaptation.state import Work

SECONDS = 0.07  # of a million voxels on a busy core: measured 0.05 to 0.08
MINIMUM_VOLUMES = (5.0, 10.0, 15.0)  # mm^3 that are tried beside the start model's

# of a case, float32, in a box of the grid of its brain mask
Probability = Callable[[PreparedSession, Box, Volume], np.ndarray]
Scores = dict[float, LabelScores]  # by minimum volume


@dataclass(frozen=True)
class Labelled:
    """A labelled case under test.

    Attributes
    ----------
    fold : the training that leaves it out.
    blocks : parts of it that are left out one by one; 0 for all of it at once; 1 where nothing
        can be left out.
    """

    one: PreparedSession
    fold: str
    blocks: int = 0


@dataclass(frozen=True)
class Tested:
    """The scores of one network on the labelled cases, by name of the case.

    Attributes
    ----------
    plain, recalibrated : out-of-fold.
    fitted : on all cases.
    with_fitted : Dice of each case with it.
    annotated, volume : share of the brain, and the drawn mm^3.
    spans : of the annotated parts, in mm, where lesions of one participant lower the threshold.
    """

    plain: dict[str, LabelScores]
    recalibrated: dict[str, LabelScores]
    fitted: Recalibration
    with_fitted: dict[str, float]
    annotated: dict[str, float]
    volume: dict[str, float]
    spans: dict[str, float]


@dataclass(frozen=True)
class Near:
    """A case under test, near its lesions: a hundredth of its voxels can be marked at all.

    Attributes
    ----------
    truth : in the box around what is drawn, and what the lowest threshold would mark.
    counts : by block, of the whole brain.
    blocks : parts that are left out one by one, within the box.
    places, values : flat indices of these voxels in the box, and their probabilities.
    span : of the annotated part of the brain, in mm: the least of three directions.
    """

    truth: Truth
    counts: list[Counts]
    blocks: list[tuple[slice | np.ndarray, ...]]
    places: np.ndarray
    values: np.ndarray
    span: float

    def marked(self, threshold: float) -> np.ndarray:
        """Voxels at or above a threshold, not below the lowest."""
        found = np.zeros(self.truth.drawn.shape, bool)
        found.flat[self.places[self.values >= threshold]] = True
        return found


def test(
    work: Work, cases: Sequence[Labelled], probability: Probability, least_move: float | None
) -> Tested:
    """Score a network on labelled cases, and its recalibration by all but the one scored.

    The minimum volume of a case is chosen by the scores of the other participants. Those are of
    fits to all participants but the one scored, hence to the label of the case, too. This is an
    effect of second order: a label can change the minimum volume of its own test through the few
    numbers of these fits alone.

    Parameters
    ----------
    least_move : of the threshold, by evidence beside these labels.

    Raises
    ------
    DataError : there are too few annotated slices for the blocks.
    """
    read = {case.one.case.name: read_near(work, case, probability) for case in cases}
    counts = {name: near.counts for name, near in read.items()}
    plain: dict[str, LabelScores] = {}
    tables: dict[str, Scores] = {}
    annotated, volume = {}, {}
    sizes = minimum_volumes(work)
    for case in cases:
        name, participant = case.one.case.name, case.one.case.participant
        near, threshold = read[name], threshold_of(work, case.one)
        annotated[name], volume[name] = near.truth.annotated, near.truth.volume
        plain[name] = scoring.score(near.marked(threshold), near.truth, sizes[:1])[sizes[0]]
        others = [
            part
            for other in cases
            if other.one.case.participant != participant
            for part in fitting.pooled(counts[other.one.case.name])
        ]
        marked = np.zeros(near.truth.drawn.shape, bool)
        for number, block in enumerate(near.blocks):
            own = [part for n, part in enumerate(counts[name]) if case.blocks and n != number]
            fitted = fitting.fit([*others, *fitting.pooled(own)]).at_least(least_move)
            marked[block] = near.marked(fitted.mark_from(threshold))[block]
        tables[name] = scoring.score(marked, near.truth, sizes)
    # the F1 of a label without a lesion that counts is not known
    everyone = [(case.one.case.participant, tables[case.one.case.name]) for case in cases]
    recalibrated = {}
    for case in cases:
        participant = case.one.case.participant
        known = [table for table in everyone if table[0] != participant]
        smallest = _best_minimum(known, sizes)
        recalibrated[case.one.case.name] = tables[case.one.case.name][smallest]
    fitted = fitting.fit([part for parts in counts.values() for part in fitting.pooled(parts)])
    fitted = fitted.at_least(least_move)
    if not any(case.blocks for case in cases):
        smallest = _best_minimum(everyone, sizes)
        if smallest != sizes[0]:
            fitted = replace(fitted, minimum_volume=smallest)
    with_fitted = {}
    for case in cases:
        near = read[case.one.case.name]
        marked = near.marked(fitted.mark_from(threshold_of(work, case.one)))
        smallest = fitted.minimum_volume or sizes[0]
        scored = scoring.score(marked, near.truth, [smallest])[smallest]
        with_fitted[case.one.case.name] = scored.dice
    with_lesions = {case.one.case.participant for case in cases if volume[case.one.case.name]}
    lowered = fitted.move < 0 and len(with_lesions) == 1
    spans = {name: near.span for name, near in read.items()} if lowered else {}
    return Tested(plain, recalibrated, fitted, with_fitted, annotated, volume, spans)


def expected_seconds(cases: Sequence[Labelled]) -> float:
    """Of a test of stored probabilities, by the voxels of the reference images."""
    voxels = sum(float(np.prod(read_grid(case.one.case.brain_mask)[0])) for case in cases)
    return SECONDS * voxels / 1e6


def minimum_volumes(work: Work) -> list[float]:
    """The start model's minimum volume and larger ones, mm^3."""
    return [work.minimum_volume, *(v for v in MINIMUM_VOLUMES if v > work.minimum_volume)]


def _best_minimum(tables: Sequence[tuple[str, Scores]], sizes: Sequence[float]) -> float:
    """The smallest minimum volume within one standard error of the best mean lesion F1.

    Parameters
    ----------
    tables : scores of the cases, each with its participant.
    """
    scores = {
        size: [ScorePair(name, (0.0, scoring.or_nan(one[size].lesion_f1))) for name, one in tables]
        for size in sizes
    }
    means = {size: gain_of(pairs) for size, pairs in scores.items()}
    best = max(sizes, key=lambda size: means[size])
    if not math.isfinite(means[best]):
        return sizes[0]
    return next(
        size
        for size in sizes
        if means[best] - means[size] <= standard_error(scores[best], scores[size])
    )


def rows_of(
    cases: Sequence[Labelled],
    tested: Tested,
    before: dict[str, LabelScores],
    after: dict[str, LabelScores],
) -> list[Row]:
    """Scores before and after, a row per case."""
    spans = tested.spans if after is tested.recalibrated else {}
    rows = []
    for case in cases:
        names, name = case.one.case.result.names, case.one.case.name
        rows.append(
            Row(
                name,
                names.subject,
                names.session,
                case.fold,
                tested.annotated[name],
                tested.volume[name],
                before[name],
                after[name],
                span=spans.get(name, math.nan),
            )
        )
    return rows


def better_of(
    cases: Sequence[Labelled], tested: Tested, before: dict[str, LabelScores], rung: str
) -> tuple[list[Row], Recalibration]:
    """The rows of a trained network, recalibrated unless it is better without.

    Of both the one that the decision accepts is better, and of two that it accepts, or refuses,
    the one with the higher mean Dice.
    """
    plain = rows_of(cases, tested, before, tested.plain)
    recalibrated = rows_of(cases, tested, before, tested.recalibrated)
    worth = [
        (decide(pairs, rung).accepted, gain_of(pairs))
        for pairs in map(scoring.pairs_of, (plain, recalibrated))
    ]
    if worth[1] > worth[0]:
        return recalibrated, tested.fitted
    return plain, Recalibration()


def score_one(
    work: Work, one: PreparedSession, probability: Probability, recalibration: Recalibration
) -> tuple[LabelScores, Truth]:
    """A case by a model that is settled."""
    brain = scoring.brain_of(one)
    truth = truth_of(work, one, brain)
    smallest = recalibration.minimum_volume or work.minimum_volume
    lowest = recalibration.mark_from(threshold_of(work, one))
    marked = truth.brain & (probability(one, truth.box, brain) >= lowest)
    return scoring.score(marked, truth, [smallest])[smallest], truth


def truth_of(work: Work, one: PreparedSession, brain: Volume) -> Truth:
    """The label of a case, cropped."""
    annotation = work.annotations[one.case.name]
    return scoring.truth_of(brain, annotation, minimum_volume=work.minimum_volume)


def threshold_of(work: Work, one: PreparedSession) -> float:
    """The start model's for the images of a case."""
    return work.adaptation.card.threshold_for(one.case.images)


def read_near(work: Work, case: Labelled, probability: Probability) -> Near:
    """Read a case once: count all of its voxels, and keep those that a threshold may mark."""
    brain = scoring.brain_of(case.one)
    truth = truth_of(work, case.one, brain)
    found = probability(case.one, truth.box, brain)
    blocks = _blocks(case, truth)
    counts = _count(work, case, truth, found, blocks)
    lowest = Recalibration(move=-fitting.MAX_MOVE).mark_from(threshold_of(work, case.one))
    candidates = truth.brain & (found >= lowest)
    around = candidates | truth.drawn
    box = bounding_box(around) if around.any() else (slice(0, 1),) * 3
    inside = candidates[box]
    whole = bool(truth.extent[box].all())
    cropped = replace(
        truth,
        box=box,
        brain=np.broadcast_to(np.True_, inside.shape),
        drawn=truth.drawn[box].copy(),
        extent=np.broadcast_to(np.True_, inside.shape) if whole else truth.extent[box].copy(),
        lesions=None if truth.lesions is None else truth.lesions[box].copy(),
    )
    return Near(
        cropped,
        counts,
        [_within(block, box) for block in blocks],
        np.flatnonzero(inside),
        found[box][inside],
        scoring.span_of(truth.extent & truth.brain, brain.spacing),
    )


def _within(block: tuple[slice | np.ndarray, ...], box: Box) -> tuple[slice | np.ndarray, ...]:
    """A part of a case in the numbers of a box of it."""
    slices = block[AXIAL]
    if isinstance(slices, slice):
        return block
    first, last = box[AXIAL].start, box[AXIAL].stop
    return (*block[:AXIAL], slices[(slices >= first) & (slices < last)] - first)


def _count(
    work: Work,
    case: Labelled,
    truth: Truth,
    found: np.ndarray,
    blocks: Sequence[tuple[slice | np.ndarray, ...]],
) -> list[Counts]:
    counts = []
    for block in blocks:
        extent = truth.extent[block]
        counts.append(
            fitting.count(
                found[block],
                truth.drawn[block] & extent,
                truth.brain[block] & extent,
                participant=case.one.case.participant,
                voxel_volume=truth.voxel_volume,
                threshold=threshold_of(work, case.one),
            )
        )
    return counts


def _blocks(case: Labelled, truth: Truth) -> list[tuple[slice | np.ndarray, ...]]:
    """What is left out at a time: everything, or blocks of axial slices."""
    if not case.blocks:
        return [(slice(None),) * 3]
    inside = truth.extent & truth.brain
    lesion = np.asarray((truth.drawn & inside).sum(axis=(0, 1)))
    annotated = np.asarray(inside.any(axis=(0, 1)))
    try:
        found = slice_folds(annotated, lesion, case.blocks)
    except ValueError:
        raise too_few_slices(case.one, int(annotated.sum()), case.blocks) from None
    assert AXIAL == 2
    return [(slice(None), slice(None), slices) for slices in found]
