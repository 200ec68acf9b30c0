"""How far the samples of the training engine differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Randomisation:
    """How far simulated samples differ.

    Attributes
    ----------
    rotation : largest angle about each axis [degrees].
    scaling : largest change of each axis.
    elastic : largest standard deviation of the deformation at its knots, 24 mm apart; that of all
        voxels is about half of it [mm].
    misregistration : share of channels moved against the others.
    clinical : share of samples in which every channel has thick slices.
    mixed : share of samples in which every channel but FLAIR has thick slices.
    thick_slices : share of the channels of other samples that have thick slices.
    rater_share : least share of a thick slice that a lesion fills where it is drawn there, at most
        half; each sample has a share from this one to half.
    infratentorial : share of patches around brain stem or cerebellar white matter.
    noise : largest standard deviation of the noise [white matter = 1].
    bias : largest standard deviation of the logarithm of the bias field at its knots, 30 to 70 mm
        apart; that of all voxels is about half of it.
    faintest : what the faintest lesion adds in FLAIR [white matter = 1].
    brightest : what the brightest lesion adds in FLAIR [white matter = 1].
    real_t1w : share of samples that use a head's real T1w, where it has one.
    """

    rotation: float = 15.0
    scaling: float = 0.12
    elastic: float = 3.0
    misregistration: float = 0.35
    clinical: float = 0.3
    mixed: float = 0.15
    thick_slices: float = 0.2
    rater_share: float = 0.5
    infratentorial: float = 0.12
    noise: float = 0.10
    bias: float = 0.3
    faintest: float = 0.32
    brightest: float = 1.8
    real_t1w: float = 0.7
