"""ssl2-bids: segment multiple-sclerosis lesions at 7T and 3T; a BIDS App that a site can adapt.

The names of ``__all__`` are the public face, for notebooks and other programs::

    import ssl2_bids as s2

    flair = s2.preprocess(s2.read_volume('sub-01_FLAIR.nii.gz'))
    t1w = s2.preprocess(s2.read_volume('sub-01_T1w.nii.gz'))
    lesions = s2.segment(flair, t1w)
    s2.write_volume(lesions.mask, 'lesions.nii.gz', dtype='uint8')

Everything else is private and may change without notice. Nothing heavy is imported before it is
used. For research use only: not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'
__date__ = '2026-11-23'  # of this version

if TYPE_CHECKING:
    from ssl2_bids.errors import Ssl2Error
    from ssl2_bids.networks.cards import Card
    from ssl2_bids.notebook import (
        Preprocessed,
        Scores,
        SimulatedHead,
        evaluate,
        find_lesions,
        load_model,
        preprocess,
        read_volume,
        register,
        segment,
        simulate_head,
        write_volume,
    )
    from ssl2_bids.steps.lesions import Lesions
    from ssl2_bids.volume import Volume

__all__ = [
    'Card',
    'Lesions',
    'Preprocessed',
    'Scores',
    'SimulatedHead',
    'Ssl2Error',
    'Volume',
    'evaluate',
    'find_lesions',
    'load_model',
    'preprocess',
    'read_volume',
    'register',
    'segment',
    'simulate_head',
    'write_volume',
]

_ELSEWHERE = {
    'Card': 'ssl2_bids.networks.cards',
    'Lesions': 'ssl2_bids.steps.lesions',
    'Ssl2Error': 'ssl2_bids.errors',
    'Volume': 'ssl2_bids.volume',
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_ELSEWHERE.get(name, 'ssl2_bids.notebook')), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
