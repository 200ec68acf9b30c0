"""Which values of a configuration are possible, and what to give instead of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ssl2_bids.errors import UsageError

Rule = tuple[Callable[[Any], bool], str]

NOT_NEGATIVE: Rule = (lambda value: value >= 0, 'Give 0 or more.')
ABOVE_0: Rule = (lambda value: value > 0, 'Give more than 0.')
FROM_1: Rule = (lambda value: value >= 1, 'Give 1 or more.')
SHARE: Rule = (lambda value: 0 <= value <= 1, 'Give a share, from 0 to 1.')
BELOW_1: Rule = (lambda value: 0 <= value < 1, 'Give a share, from 0 to below 1.')


def one_of(*values: str) -> Rule:
    """The rule of a key that takes some words."""
    return (lambda value: value in values), f'Give {", ".join(values[:-1])} or {values[-1]}.'


RULES: dict[str, Mapping[str, Rule]] = {
    'LoopSettings': {
        'steps': NOT_NEGATIVE,
        'learning_rate': ABOVE_0,
        'warm_up': SHARE,
        'floor': SHARE,
        'weight_decay': NOT_NEGATIVE,
        'betas': (lambda both: all(0 <= one < 1 for one in both), 'Give two, 0 to below 1 each.'),
        'clip': ABOVE_0,
        'average': BELOW_1,
        'accumulate': FROM_1,
        'echo': FROM_1,
        'precision': one_of('auto', 'float32', 'bfloat16'),
        'log_every': FROM_1,
        'validate_every': NOT_NEGATIVE,
        'checkpoint_every': NOT_NEGATIVE,
        'checkpoint_minutes': NOT_NEGATIVE,
        'workers': NOT_NEGATIVE,
        'ahead': NOT_NEGATIVE,
    },
    'StageSettings': {
        'batch': FROM_1,
        'pretext': one_of('masked', 'tang'),
        'cross_entropy': NOT_NEGATIVE,
        'focal_tversky': NOT_NEGATIVE,
        'lesion_cross_entropy': NOT_NEGATIVE,
        'frozen': SHARE,
    },
    'Data': {
        'real': BELOW_1,
        'skull_strip': one_of('auto', 'skip', 'force'),
    },
    'Randomisation': {
        'rotation': NOT_NEGATIVE,
        'scaling': BELOW_1,
        'elastic': NOT_NEGATIVE,
        'misregistration': SHARE,
        'clinical': SHARE,
        'mixed': SHARE,
        'thick_slices': SHARE,
        'rater_share': (
            lambda value: 0 < value <= 0.5,
            'Give a share above 0 and at most 0.5.',
        ),
        'infratentorial': SHARE,
        'noise': NOT_NEGATIVE,
        'bias': NOT_NEGATIVE,
        'faintest': ABOVE_0,
        'brightest': ABOVE_0,
        'real_t1w': SHARE,
    },
    'Config': {
        'seed': (lambda value: 0 <= value < 2**31, 'Give a number from 0 to below 2^31.'),
        'overlap': BELOW_1,
        'name': (
            lambda value: any(one.isascii() and one.isalnum() for one in value),
            'Give a name with letters or digits.',
        ),
    },
}


def check_values(settings: Any, where: str = '') -> None:
    """Check each value of a part of a configuration by itself.

    Parameters
    ----------
    settings : a dataclass of the configuration.
    where : its key in the configuration, with a dot behind.

    Raises
    ------
    UsageError : naming the first key with an impossible value.
    """
    for name, (possible, advice) in RULES[type(settings).__name__].items():
        value = getattr(settings, name)
        if not possible(value):
            raise UsageError(f'the key "{where}{name}" is {value!r}', advice=advice)
