"""Information on an image in its file name, beyond the suffix.

Labels of ``acq-``, ``rec-`` and ``desc-`` are free text; these are the words that converters and
labs put there (the protocol name of the scanner, most often).
"""

from __future__ import annotations

import re
from typing import Any

from ssl2_bids.contrasts import SUFFIXES

FREE_TEXT = ('acquisition', 'reconstruction', 'desc')

_INVERSION = re.compile(r'inv(?:ersion)?(?:time)?[-_]?0*([12])(?!\d)|(?<!\d)([12])(?:st|nd)?inv')
_ANY_INVERSION = re.compile(r'^inv$|inversion')
_UNIFORM = re.compile(r'(?<![a-z])uni(?:t1|den|images?)?(?![a-z])|(?<=mp2rage)uni|uni(?:den)?$')
_MAP = re.compile(r'map(?:s|ping)?$|^(?:t1|t2|t2star|r1|r2|r2star|pd|b0|b1)map|fieldmap|sa2rage')
_FIELD = re.compile(r'^b[01](?:tfl|ref|plus|minus|mag)?$|^fmap|gre?field')
_SCOUT = re.compile(r'localis?z?er|scout|survey|smartbrain|^loc$')
_PHASE = re.compile(r'phase(?:image|map|diff)?s?$|^phase(?!d|array|enc)|(?<!al)pha$|(?<![a-z])ph$')
_STILL = re.compile(r'still|rest|static|standard|no(?:head)?mo(?:tion|ve(?:ment)?)')
_DENOISED = re.compile(r'(?<!no)(?<!non)denois|(?:^|[^a-z]|uni)den(?![a-z])')
_MOVING = re.compile(
    r'motion|mov(?:e|ing)|nod(?:s|ding)?(?![a-z])|shak|tremor|cough|talk|rotat|swallow'
)
_CORRECTION = r'(?:pmc|p?moco|motioncorr\w*|prospectivemotion\w*|vnavs?|fatnavs?)'
_CORRECTED = re.compile(_CORRECTION)
_NOT_CORRECTED = re.compile(_CORRECTION + r'(?:off|no|0)|(?:no|non|without|wo|un)' + _CORRECTION)
NATIVE = ('anat', 'individual', 'native', 'orig', 'scanner', 'within', 'pdw', 'mp2rage',
          *(suffix.lower() for suffix in SUFFIXES))  # fmt: skip


def words(file: dict[str, Any]) -> list[str]:
    """The free labels of a name, in lower case."""
    return [file[name].lower() for name in FREE_TEXT if file.get(name)]


def inversion(file: dict[str, Any]) -> str:
    """``1`` or ``2`` of an inversion image of MP2RAGE, ``?`` if it is one; else empty."""
    number = str(file.get('inv', '')).lstrip('0')
    if number in ('1', '2'):
        return number
    if match := re.fullmatch(r'INV([12])', file['suffix'], re.IGNORECASE):
        return match[1]
    for word in words(file):
        if match := _INVERSION.search(word):
            return match[1] or match[2]
        if _ANY_INVERSION.search(word):
            return '?'
    return '?' if number else ''


def is_uniform(file: dict[str, Any]) -> bool:
    """Whether the name is that of the uniform image of MP2RAGE, by the standard or by custom."""
    if inversion(file) or is_phase(file):
        return False
    if file['suffix'] in ('UNIT1', 'UNI'):
        return True
    return file['suffix'] in ('MP2RAGE', 'T1w') and any(_UNIFORM.search(w) for w in words(file))


def is_denoised(file: dict[str, Any]) -> bool:
    """Whether the name marks an image denoised by the scanner (``rec-denoised``)."""
    return any(_DENOISED.search(word) for word in words(file))


def is_phase(file: dict[str, Any]) -> bool:
    """Whether the image is a phase, by its ``part`` or by a free label."""
    return file.get('part') == 'phase' or any(_PHASE.search(word) for word in words(file))


def is_complex_part(file: dict[str, Any]) -> bool:
    """Whether the image is the real or imaginary part of a complex one, by its ``part``."""
    return file.get('part') in ('real', 'imag')


def what_else(file: dict[str, Any]) -> str:
    """The kind of an image that is not an anatomical one, by its name; empty if anatomical."""
    if file['suffix'] in ('T1w', 'UNIT1') and inversion(file):
        return 'an inversion image of MP2RAGE'
    for word in words(file):
        if _MAP.search(word):
            return 'a map'
        if _FIELD.search(word):
            return 'a field map'
        if _SCOUT.search(word):
            return 'a localizer'
        if _PHASE.search(word):
            return 'a phase image'
    return ''


def is_native(file: dict[str, Any]) -> bool:
    """Whether the image lies in the space of its participant, not in that of a template."""
    return file.get('space') is None or file['space'].lower() in NATIVE


def motion(file: dict[str, Any]) -> int:
    """0 without a task or for lying still, 1 for another task, 2 for movement."""
    task = (file.get('task') or '').lower()
    labels = [task, *words(file)]
    if any(_STILL.search(label) for label in labels):
        return 0
    plain = [re.sub(_CORRECTION, '', label) for label in labels]
    if any(_MOVING.search(label) for label in plain):
        return 2
    return 1 if task else 0


def motion_correction(file: dict[str, Any]) -> int:
    """0 if motion was corrected by the name, 2 if it was not, 1 if the name has no entry."""
    labels = words(file)
    if any(_NOT_CORRECTED.search(label) for label in labels):
        return 2
    return 0 if any(_CORRECTED.search(label) for label in labels) else 1
