"""Losses of one lesion probability, pooled over a batch, on the voxels where they may look.

All maps are (N, 1, D, H, W) and all masks 0 or 1 in float32; a network gives one logit per
voxel. Nothing here asks for a value on the host, so a GPU is never waited for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ONE_VOXEL = 1.0  # added to both sides of an overlap: finite without lesion, no matter with one
MAX_POSITIVE_WEIGHT = 20.0  # beyond it a single voxel decides about a step
FALSE_POSITIVE = 0.3  # focal Tversky: an overlooked lesion voxel costs more than
FALSE_NEGATIVE = 0.7  # one too many, for small lesions are what a network overlooks
FOCUS = 0.75  # exponent below 1: the worse the overlap, the flatter; Abraham & Khan 2019
SUSPECTED = 0.1  # probability above which a voxel belongs to the lesion side of a mean
REACH = 2  # voxels around those, as the border is where two predictions differ
SMALL = 100.0  # voxels of 1 mm; a lesion voxel with fewer of its kind around it counts more
NEIGHBOURHOOD = 9  # voxels, edge of the cube in which they are counted
MAX_SMALL_WEIGHT = 4.0
TINY = 1e-6  # smallest probability in a logarithm; finite in half precision


def sup_loss(
    logits: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    focal_tversky: float = 0.0,
    weigh_positives: bool = False,
) -> Tensor:
    """Half of cross-entropy plus Dice loss on annotated voxels.

    Parameters
    ----------
    logits, y : (N, 1, D, H, W); the network's, and the label.
    m : (N, 1, D, H, W), 1 where the label is known.
    focal_tversky : weight of :func:`focal_tversky_loss`, added where above zero; 0.3 is usual.
    weigh_positives : lesion voxels count min(20, background / lesion voxels) times in the
        cross-entropy.

    Returns
    -------
    Scalar; 0 (with gradients of zero) where nothing is known.
    """
    loss = (cross_entropy(logits, y, m, weigh_positives=weigh_positives) + dice(logits, y, m)) / 2
    if focal_tversky > 0:
        loss = loss + focal_tversky * focal_tversky_loss(logits, y, m)
    return loss


def cross_entropy_map(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per voxel, in nats, of logits against a probability or a label."""
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction='none')


def cross_entropy(
    logits: Tensor, y: Tensor, m: Tensor, *, weigh_positives: bool = False
) -> Tensor:
    """Sum of m CE(p, y) / max(sum of m, 1), lesion voxels heavier if asked for."""
    loss = m * cross_entropy_map(logits, y)
    if weigh_positives:
        lesion = (m * y).sum()
        ratio = (m.sum() - lesion) / lesion.clamp_min(1)
        loss = loss * (1 + y * (ratio.clamp(1, MAX_POSITIVE_WEIGHT) - 1))
    return loss.sum() / m.sum().clamp_min(1)


def dice(logits: Tensor, y: Tensor, m: Tensor) -> Tensor:
    """1 - (2 sum of m p y + 1) / (sum of m p + sum of m y + 1), of the lesion alone.

    Without a lesion voxel in the batch that is nearly 1 whatever the network does; the mean
    probability over the annotated voxels, all of it false, stands in its place.
    """
    p = torch.sigmoid(logits.float())
    predicted, drawn = (m * p).sum(), (m * y).sum()
    overlap = (2 * (m * p * y).sum() + ONE_VOXEL) / (predicted + drawn + ONE_VOXEL)
    return torch.where(drawn > 0, 1 - overlap, predicted / m.sum().clamp_min(1))


def focal_tversky_loss(
    logits: Tensor, y: Tensor, m: Tensor, *, weigh_small: bool = False
) -> Tensor:
    """(1 - TP / (TP + 0.3 FP + 0.7 FN)) ** 0.75, each with a voxel added; 0 without lesion.

    Abraham & Khan, ISBI 2019 (arXiv 1810.07842).

    Parameters
    ----------
    weigh_small : lesion voxels count by :func:`small_lesion_weight`.
    """
    p = torch.sigmoid(logits.float())
    lesion = y * small_lesion_weight(y) if weigh_small else y
    true = (m * p * lesion).sum() + ONE_VOXEL
    false = FALSE_POSITIVE * (m * p * (1 - y)).sum()
    false = false + FALSE_NEGATIVE * (m * (1 - p) * lesion).sum()
    distance = (false / (true + false)).clamp_min(TINY)  # a power below 1 is steep at 0
    return torch.where((m * y).sum() > 0, distance**FOCUS, 0 * distance)


def small_lesion_weight(y: Tensor) -> Tensor:
    """Weight of lesion voxels by the size of their lesion, so that small ones are not outvoted.

    100 voxels / lesion voxels in the 9 x 9 x 9 cube around, from 1 to 4: a lesion of 25 to 100
    voxels counts as one of 100. The count in a cube stands in for that of the connected lesion
    (as blob loss has it, Kofler et al. 2023, arXiv 2205.08209), which a GPU cannot label.

    Parameters
    ----------
    y : (N, 1, D, H, W), 0 or 1.
    """
    count = y
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = NEIGHBOURHOOD, NEIGHBOURHOOD // 2
        count = functional.avg_pool3d(count, kernel, 1, padding) * NEIGHBOURHOOD
    return (SMALL / count.clamp_min(1)).clamp(1, MAX_SMALL_WEIGHT)


def split_brain(p: Tensor, q: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Split a brain in two: near what either of two predictions takes for lesion, and the rest.

    Returns
    -------
    F, B : (N, 1, D, H, W) float32 masks. F is max(p, q) > 0.1, dilated by a cube of 2 voxels
        to each side, within the brain. No gradient goes through them.
    """
    near = (torch.maximum(p.detach(), q.detach()) * brain > SUSPECTED).float()
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * REACH + 1, REACH
        near = functional.max_pool3d(near, kernel, 1, padding)
    return near * brain, (1 - near) * brain


def masked_mean(d: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``d`` with weights; 0 where all of them are zero."""
    total = weight.sum()
    return torch.where(total > 0, (d * weight).sum() / total.clamp_min(TINY), 0 * d.sum())


def balanced_mean(
    d: Tensor, p_s: Tensor, p_t: Tensor, brain: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Mean of a disagreement in which lesions weigh as much as all the rest of the brain.

    ``mean over F of d / 2 + mean over B of d / 2`` with F and B of :func:`split_brain`; only the
    second term where F is empty. Lesions are 0.01 to 1 % of the voxels: a plain mean of
    their disagreement is almost zero, and favours background.

    Parameters
    ----------
    d : (N, 1, D, H, W), what is averaged.
    p_s, p_t : (N, 1, D, H, W), the two predictions, for instance of student and teacher.
    brain : (N, 1, D, H, W), where to look.
    weight : (N, 1, D, H, W), weights of the two means; ones where left out.
    """
    lesion, rest = split_brain(p_s, p_t, brain)
    if weight is not None:
        lesion, rest = lesion * weight, rest * weight
    return (masked_mean(d, lesion) + masked_mean(d, rest)) / 2


def relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) per voxel, in nats, of two lesion probabilities over (lesion, background)."""
    p, q = p.clamp(TINY, 1 - TINY), q.clamp(TINY, 1 - TINY)
    return p * (p.log() - q.log()) + (1 - p) * ((1 - p).log() - (1 - q).log())


def entropy(p: Tensor) -> Tensor:
    """-p ln p - (1 - p) ln(1 - p) per voxel, in nats."""
    p = p.clamp(TINY, 1 - TINY)
    return -p * p.log() - (1 - p) * (1 - p).log()
