"""The strategies by name, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from ssl2_bids.errors import UsageError
from ssl2_bids.training.strategy import Strategy

_CLASSES = {
    'supervised': 'Supervised',
    'entropy': 'Entropy',
    'mean_teacher': 'MeanTeacher',
    'ua_mt': 'UncertaintyAwareMeanTeacher',
    'ict': 'InterpolationConsistency',
    'cps': 'CrossPseudoSupervision',
    'cross_teach': 'CrossTeaching',
    'urpc': 'PyramidConsistency',
    'dan': 'AdversarialNetwork',
    'r_drop': 'RegularisedDropout',
    'cct': 'CrossConsistency',
    'dct': 'DeepCoTraining',
    'fixmatch': 'FixMatch',
    'bcp': 'BidirectionalCopyPaste',
    'self_training': 'SelfTraining',
    'twin': 'Twin',
}


def available() -> tuple[str, ...]:
    """The names of the strategies."""
    return tuple(_CLASSES)


def find(name: str) -> type[Strategy]:
    """The class of a strategy.

    Raises
    ------
    UsageError : there is none of that name.
    """
    if name not in _CLASSES:
        raise UsageError(
            f'there is no strategy "{name}"',
            advice=f'Choose one of {", ".join(_CLASSES)}, or none.',
        )
    module = import_module(f'{__name__}.{name}')
    found: type[Strategy] = getattr(module, _CLASSES[name])
    return found
