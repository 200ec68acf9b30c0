"""The contrasts that ssl2-bids takes: the one list, from which all other places derive theirs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contrast:
    """A kind of image.

    Attributes
    ----------
    suffix : of BIDS; names the contrast in results, and its channel in the card of a model.
    other_suffixes : of raw images that give this contrast too.
    similar : contrast whose channel this one fills in a model without a channel of its own. An
        image of ``similar`` is left out where one of this contrast is taken.
    receive_field : whether the receive field is seen in the image, so that N4 corrects it.
    """

    suffix: str
    other_suffixes: tuple[str, ...] = ()
    similar: str = ''
    receive_field: bool = True

    @property
    def key(self) -> str:
        """Its name in options and filter files."""
        return self.suffix.lower()


# In the order in which the images of a session are chosen: a contrast before its ``similar`` one.
CONTRASTS = (
    Contrast('UNIT1', similar='T1w', receive_field=False),
    Contrast('T1w'),
    Contrast('FLAIR'),
    Contrast('T2w'),
    Contrast('T2starw', other_suffixes=('MEGRE',)),
)
SUFFIXES = tuple(one.suffix for one in CONTRASTS)
KEYS = tuple(one.key for one in CONTRASTS)
SIMILAR = {one.suffix: one.similar for one in CONTRASTS if one.similar}
