"""Cards: description of a model, and the check of its ``model.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.contrasts import SIMILAR
from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.calibration import UNCHANGED, Calibration
from ssl2_bids.tables import fits

if TYPE_CHECKING:
    import torch

CARD_FILE = 'model.json'
WEIGHTS_FILE = 'weights.safetensors'
COPY_AGAIN = 'Copy the model folder again, or install the package again if it came with it.'

ADAPT_AGAIN = 'Copy the model folder again, or remove it and run the adaptation again.'


@dataclass(frozen=True)
class Card:
    """Description of a model: the checked content of its ``model.json``.

    Attributes
    ----------
    name, version : of the model.
    label : BIDS ``desc-`` label of its outputs, letters and digits; in the card of a model it may
        be missing (then those of its name); empty here for the bundled default.
    network : ``Type`` of the network and its parameters.
    channels : names of the input channels, in order.
    required : alternatives; all channels of at least one alternative are required.
    voxel_size : edges of a voxel in mm.
    normalisation : ``Type`` and its parameters.
    threshold : lowest probability of a lesion voxel.
    thresholds : thresholds for sets of channels with another one.
    calibration : of the logit of the probability on the grid of the reference image.
    minimum_lesion_volume : in mm^3.
    window, overlap : sliding window in voxels, and overlap of neighbouring windows, 0 to 1.
    sha256 : of the weights file, in hexadecimal digits.
    folder : of the model.
    content : the whole card as stored.
    """

    name: str
    version: str
    label: str
    network: dict[str, Any]
    channels: tuple[str, ...]
    required: tuple[tuple[str, ...], ...]
    voxel_size: tuple[float, float, float]
    normalisation: dict[str, Any]
    threshold: float
    minimum_lesion_volume: float
    window: tuple[int, int, int]
    overlap: float
    sha256: str
    folder: Path
    content: dict[str, Any]
    thresholds: tuple[tuple[frozenset[str], float], ...] = ()
    calibration: Calibration = UNCHANGED

    @property
    def identity(self) -> dict[str, Any]:
        """The keys that determine results: models of equal identity give equal results."""
        found = {key: self.content.get(key) for key in (*CARD_KEYS, 'Label', 'Output')}
        if self.calibration != UNCHANGED:
            found['Calibration'] = self.content['Calibration']
        return found

    @property
    def is_committee(self) -> bool:
        """Whether the network has members, which may disagree."""
        return bool(self.network['Type'] == 'committee')

    @property
    def adapted_to(self) -> list[str]:
        """The participants (``sub-``) of whose labels this model and its start models learnt.

        A model that was not accepted has the network of its start model.
        """
        evidence = self.content.get('Evidence') or {}
        own = evidence.get('Labelled') or () if self.content.get('Accepted', True) else ()
        return sorted({*own, *(evidence.get('SeenBefore') or ())})

    @property
    def refusal(self) -> str:
        """A remark on a site's model whose adaptation was not accepted; empty for other models."""
        if self.content.get('Accepted', True):
            return ''
        parent = self.content.get('Parent')
        name = f' {parent["Name"]}' if isinstance(parent, dict) and 'Name' in parent else ''
        return (
            f'the model {self.label} was not accepted after its adaptation: its masks are those '
            f'of the start model{name}'
        )

    @property
    def label_digests(self) -> set[str]:
        """SHA-256 of the files of labels of its adaptation, of people held out from it too."""
        files = self.content.get('Labels') if self.content.get('Accepted', True) else None
        if not isinstance(files, list):
            return set()
        return {str(one.get('Sha256')) for one in files if isinstance(one, dict)}

    @property
    def fitted_minimum_volume(self) -> float:
        """The minimum lesion volume in mm^3 that a site asks for; 0 where none was fitted."""
        own = (self.content.get('Recalibration') or {}).get('MinimumLesionVolume')
        return float(self.content.get('SiteMinimumLesionVolume') or own or 0)

    @property
    def reference(self) -> dict[str, str]:
        """Entries on the model in sidecars and pages: name, label, version and SHA-256."""
        return {
            'Name': self.name,
            'Label': self.label,
            'Version': self.version,
            'Sha256': self.sha256,
        }

    def threshold_for(self, contrasts: Iterable[str]) -> float:
        """The threshold for the channels that some contrasts (BIDS suffixes) fill."""
        filled = {channel_of(contrast, self) for contrast in contrasts} - {None}
        return next((value for channels, value in self.thresholds if channels == filled),
                    self.threshold)  # fmt: skip


def channel_of(contrast: str, card: Card) -> str | None:
    """The channel of a card that takes a contrast: its own, else a similar one; or none."""
    if contrast in card.channels:
        return contrast
    similar = SIMILAR.get(contrast)
    return similar if similar in card.channels else None


@dataclass(frozen=True)
class NetworkType:
    """A type of network in a card.

    Attributes
    ----------
    build : makes the network, with random weights, from the arguments in ``parameters``.
    parameters : key of the card's ``Network`` -> argument of ``build``.
    required : the keys that have no default.
    multiple : from the card's ``Network``, divisor of the sizes of windows.
    """

    build: Callable[..., torch.nn.Module]
    parameters: Mapping[str, str]
    required: Collection[str]
    multiple: Callable[[Mapping[str, Any]], int]


def _is_typed(value: dict[str, Any]) -> bool:
    return isinstance(value.get('Type'), str)


def _is_normalisation(value: dict[str, Any]) -> bool:
    clip: Any = value.get('Clip')
    return (
        value.get('Type') == 'median-mad'
        and value.get('Region', 'brain') == 'brain'
        and fits(tuple[float, float], clip)
        and -1e6 < clip[0] < clip[1] < 1e6
        and fits(float, value.get('Divide'))
        and 0 < value['Divide'] < 1e6
        and fits(float, value.get('Background'))
        and abs(value['Background']) < 1e6
    )


def _are_thresholds(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == {'Channels', 'Threshold'}
        and all(_is_possible(key, one[key]) for key in one)
        for one in value
    )


def _is_calibration(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {'Scale', 'Shift'}
        and all(fits(float, number) and abs(number) < 1e3 for number in value.values())
        and value['Scale'] > 0
    )


def _is_possible(key: str, value: Any) -> bool:
    hint, check, _ = CARD_KEYS[key]
    return fits(hint, value) and check(value)


LESION, IMAGE = 'lesion logit', 'image'  # what a network gives; without the key, the first
# what the input of every network is, if its card states it
INPUT = {'Orientation': 'RAS', 'Absent': 'all-zero channel', 'SkullStripped': True}
THREE = tuple[float, float, float]
COUNTS = tuple[int, int, int]

# key -> type, what its value must be like, and that in words
CARD_KEYS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    'Name': (str, lambda v: re.search('[0-9A-Za-z]', v) is not None, 'a name'),
    'Version': (str, lambda v: True, 'a text'),
    'Network': (dict[str, Any], _is_typed, 'an object with a "Type"'),
    'Channels': (
        tuple[str, ...],
        lambda v: bool(v) and len(set(v)) == len(v),
        'a list of different names',
    ),
    'Required': (
        tuple[tuple[str, ...], ...],
        lambda v: bool(v) and all(v),
        'a list of lists of names, none of them empty',
    ),
    'VoxelSize': (THREE, lambda v: all(0.05 < n < 20 for n in v), 'three lengths in mm'),
    'Normalisation': (
        dict[str, Any],
        _is_normalisation,
        'an object with "Type" (median-mad), "Region" (brain, if given), "Clip" (two numbers, the '
        'lower one first), "Divide" (above 0) and "Background"',
    ),
    'Threshold': (float, lambda v: 0 < v < 1, 'a number between 0 and 1'),
    'MinimumLesionVolume': (float, lambda v: 0 <= v < 1e6, 'a volume in mm^3'),
    'Window': (
        COUNTS,
        lambda v: 0 < min(v) <= max(v) <= 1024,
        'three counts of voxels, 1 to 1024',
    ),
    'Overlap': (float, lambda v: 0 <= v < 1, 'a share from 0 to below 1'),
    'Sha256': (
        str,
        lambda v: re.fullmatch('[0-9a-f]{64}', v) is not None,
        '64 hexadecimal digits in small letters',
    ),
}


def check_card(content: Any, path: Path, *, network_types: Mapping[str, NetworkType]) -> None:
    """Check that a card has every key, each of its type, and that the keys agree.

    Parameters
    ----------
    content : the card as read.
    path : its file, for messages.
    network_types : the types of networks that can be built.

    Raises
    ------
    UnavailableError : naming ``path`` and the key.
    """
    if not isinstance(content, dict):
        raise bad_card(path, 'the card is not a JSON object')
    for key, (_, _, wanted) in CARD_KEYS.items():
        if key not in content:
            raise bad_card(path, f'"{key}" is missing')
        if not _is_possible(key, content[key]):
            raise bad_card(path, f'"{key}" is {content[key]!r} but must be {wanted}')
    for key, value in INPUT.items():
        if content.get(key, value) != value:
            raise bad_card(path, f'"{key}" is {content[key]!r}; this version knows {value!r}')
    network, channels = content['Network'], content['Channels']
    if network['Type'] not in network_types:
        known = ', '.join(sorted(network_types))
        raise bad_card(
            path, f'"Network": "Type" is {network["Type"]!r}; this version knows {known}'
        )
    if content.get('Output', LESION) not in (LESION, IMAGE):
        raise bad_card(path, f'"Output" is neither {LESION!r} nor {IMAGE!r}')
    if not _are_thresholds(content.get('Thresholds', [])):
        raise bad_card(
            path,
            '"Thresholds" is not a list of objects with "Channels" and a "Threshold" (above 0, '
            'below 1)',
        )
    if 'SiteMinimumLesionVolume' in content and not _is_possible(
        'MinimumLesionVolume', content['SiteMinimumLesionVolume']
    ):
        wanted = CARD_KEYS['MinimumLesionVolume'][2]
        raise bad_card(path, f'"SiteMinimumLesionVolume" is not {wanted}')
    if 'Calibration' in content and not _is_calibration(content['Calibration']):
        raise bad_card(path, '"Calibration" is not an object with a "Scale" above 0 and a "Shift"')
    if not isinstance(content.get('TrainedOn', ''), str):
        raise bad_card(path, '"TrainedOn" is not a text')
    named = {name for one in content.get('Thresholds', []) for name in one['Channels']}
    if strange_names := sorted(named - set(channels)):
        raise bad_card(path, f'"Thresholds" names {strange_names[0]}, not among "Channels"')
    label = content.get('Label', 'x')
    if not isinstance(label, str) or not re.fullmatch('[0-9A-Za-z]+', label):
        raise bad_card(path, f'"Label" is {label!r}, but must have letters and digits only')
    unknown = sorted(set(sum(content['Required'], [])) - set(channels))
    if unknown:
        raise bad_card(path, f'"Required" names {", ".join(unknown)}, not among "Channels"')
    if network.get('InputChannels', len(channels)) != len(channels):
        raise bad_card(path, '"Network": "InputChannels" is not the number of "Channels"')
    network_type = network_types[network['Type']]
    strange = sorted(network.keys() - network_type.parameters.keys() - {'Type', 'Multiple'})
    if strange:
        known = ', '.join(sorted(network_type.parameters))
        raise bad_card(
            path, f'"Network": {strange[0]!r} is unknown; {network["Type"]} knows {known}'
        )
    multiple = network.get('Multiple', 1)
    if (
        not fits(int, multiple)
        or multiple < 1
        or any(size % multiple for size in content['Window'])
    ):
        raise bad_card(path, f'"Window" is not a multiple of "Network": "Multiple" ({multiple})')
    try:
        needed = network_type.multiple(network)
    except ValueError as error:
        raise bad_card(path, f'"Network": {error}') from None
    if any(size % needed for size in content['Window']):
        raise bad_card(
            path, f'"Window" is not a multiple of {needed}, which {network["Type"]} needs'
        )
    if all(size == needed for size in content['Window']):
        raise bad_card(
            path, f'"Window" is too small: at its coarsest {network["Type"]} would see one voxel'
        )
    if lacking := [key for key in network_type.required if key not in network]:
        raise bad_card(path, f'"Network": {lacking[0]!r} is missing')


def bad_card(path: Path, message: str) -> UnavailableError:
    """The error for a card that cannot be used."""
    return UnavailableError(message, advice=COPY_AGAIN, path=path)
