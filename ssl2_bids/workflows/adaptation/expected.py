"""What a run with trainings does beside their steps: the brains that networks segment."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssl2_bids.networks.inference import count_windows
from ssl2_bids.training.adaptation.adapt import ALL
from ssl2_bids.training.adaptation.left_out import MEASURED
from ssl2_bids.training.adaptation.suggestions import sessions_asked
from ssl2_bids.volume import read_grid
from ssl2_bids.workflows.adaptation.first_results import stored_by_another
from ssl2_bids.workflows.adaptation.next_slices import PEERS, has_unknown
from ssl2_bids.workflows.adaptation.state import RUNGS_OF, Work, layers_of
from ssl2_bids.workflows.adaptation.twin.recalibrate import KEPT_APART

SAMPLED = 10  # brains that are cut into windows, for the mean of all
SECONDS = 0.6  # of a million voxels: the files of a second result; measured 0.4 to 0.8


@dataclass(frozen=True)
class Brains:
    """How often a network segments a whole brain, if the model is accepted.

    Attributes
    ----------
    curves : left out of a training that measures them, see :func:`measurements`; all trainings.
    tested : by the networks of the folds and by the final one: the test and people held out.
    asked : for the suggestions.
    results : for the second results of all sessions.
    """

    curves: int
    tested: int
    asked: int
    results: int

    @property
    def after(self) -> int:
        """Those of no training: one after another, in this process."""
        return self.tested + self.asked + self.results


def brains_of(work: Work, folds: int) -> Brains:
    """Count the brains that a run segments, for the rungs that were asked for.

    Parameters
    ----------
    folds : trainings that leave someone, or slices, out.
    """
    settings, kinds = work.adaptation.settings, layers_of(work)
    held = [one for one in work.labelled if one.case.participant in work.held]
    tested = len(work.labelled) - len(held) if folds else 0
    curves = tested if ALL in kinds else 0
    if work.adaptation.on_slices:
        tested, curves = folds, 0  # the only one, by each network
    rungs = sum(len(RUNGS_OF[layers]) for layers in kinds)
    again = sum(bool(stored_by_another(o.case.result, work.adaptation.card)) for o in held)
    final = len(held) + again
    if work.twin and not work.annotations:
        final += min(KEPT_APART, len(work.twins))
    unknown = sum(o.case.participant not in work.held and has_unknown(o) for o in work.people)
    networks = 1 + min(max(folds, 1), PEERS)
    return Brains(
        curves,
        tested * rungs + final,
        sessions_asked(unknown, settings.suggestions) * networks,
        len(work.people) if settings.resegment else 0,
    )


def measurements(steps: int) -> int:
    """How often a training measures those left out of it: the start model, and on the way."""
    every = -(-steps // MEASURED)
    return 1 + -(-steps // every)


def windows_of(work: Work) -> float:
    """The mean number of windows of a brain."""
    card = work.adaptation.card
    counts = [
        count_windows(
            torch.from_numpy(np.asarray(one.read().brain) > 0),
            window=card.window,
            overlap=card.overlap,
        )
        for one in work.people[:SAMPLED]
    ]
    return float(np.mean(counts))


def file_seconds(work: Work) -> float:
    """Of the files of the second results, by the voxels of the reference images."""
    if not work.adaptation.settings.resegment:
        return 0.0
    sample = work.people[:SAMPLED]
    voxels = np.mean([np.prod(read_grid(one.case.brain_mask)[0], dtype=float) for one in sample])
    return SECONDS * len(work.people) * float(voxels) / 1e6


def training_seconds(kinds: Sequence[tuple[float, float]], folds: int, at_a_time: int) -> float:
    """Of all trainings, in the order in which they begin.

    The final one is that of the rung that is taken: the longest is assumed. Of several at a time
    the final one of the last kind runs beside the others, and another one follows them.

    Parameters
    ----------
    kinds : seconds of a training of a fold and of a final one, of each kind in their order.
    at_a_time : trainings that run at the same time.
    """
    jobs = [seconds for seconds, _ in kinds for _ in range(folds)]
    finals = [seconds for _, seconds in kinds]
    if at_a_time < 2:
        return sum(jobs) + max(finals)
    ends = [0.0] * at_a_time
    for seconds in [*jobs, finals[-1]]:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends) + max(finals[:-1], default=0.0)


def most_steps(seconds: Callable[[int], float], limit: float, least: int, asked: int) -> int:
    """The most steps, at most ``asked``, that fit into a limit; 0 if none from ``least`` on do.

    Up to 16 steps a training of more steps may be measured less often, see :func:`measurements`,
    and take less time. These are tried one by one.

    Parameters
    ----------
    seconds : of the whole run, by the steps of each training; it grows with the steps and with
        the measurements.
    """
    least = min(least, asked)
    grows = max(least, min(asked, (MEASURED - 1) ** 2))
    fit = next((few for few in range(grows, least - 1, -1) if seconds(few) <= limit), 0)
    if fit < grows:
        return fit
    over = asked + 1
    while over - fit > 1:
        middle = (fit + over) // 2
        if seconds(middle) <= limit:
            fit = middle
        else:
            over = middle
    return fit
