"""Finding models, reading their cards, the checked loading and the storing of their weights.

A model is a folder with ``model.json`` (its card) and ``weights.safetensors``. Reading a card
needs no torch.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import DataError, UnavailableError
from ssl2_bids.files import (
    PERMISSIONS,
    finished_files,
    pointer_of,
    read_object,
    remove_leftovers,
    sha256,
    whole_file,
    write_json,
)
from ssl2_bids.networks.calibration import UNCHANGED, Calibration
from ssl2_bids.networks.cards import (
    ADAPT_AGAIN,
    CARD_FILE,
    COPY_AGAIN,
    LESION,
    WEIGHTS_FILE,
    Card,
    bad_card,
    check_card,
)
from ssl2_bids.networks.initialisation import Loaded, Tensors, initialise, match
from ssl2_bids.networks.registry import NETWORKS, NOT_BUILT, new_network

if TYPE_CHECKING:
    import torch

__all__ = [
    'NETWORKS',
    'Loaded',
    'build_network',
    'bundled_models',
    'check_tensors',
    'check_unneeded_weights',
    'check_weights',
    'find_model',
    'initialise',
    'load_network',
    'new_network',
    'output_label',
    'read_card',
    'read_weights',
    'write_model',
]

log = logging.getLogger('ssl2_bids')

DEFAULT_MODEL = 'committee-3t'
BUNDLED = Path(__file__).resolve().parent.parent / 'resources' / 'weights'


def read_card(folder: str | Path) -> Card:
    """Read and check the card of the model in a folder.

    Raises
    ------
    UnavailableError : the card is missing, damaged or may not be read, or a key of it is
        missing, has another type or an impossible value; the message names file and key.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    try:
        content = read_object(path)
    except FileNotFoundError:
        raise UnavailableError(
            'no such file; the folder is not a model',
            advice=f'A model is a folder with {CARD_FILE} and {WEIGHTS_FILE}.',
            path=path,
        ) from None
    except OSError as error:
        raise _unreadable(path, error, 'card') from None
    except ValueError as error:
        raise UnavailableError(
            f'the card is damaged ({error})', advice=COPY_AGAIN, path=path
        ) from None
    check_card(content, path, network_types=NETWORKS)
    return _card(content, folder)


def _card(content: dict[str, Any], folder: Path) -> Card:
    return Card(
        name=content['Name'],
        version=content['Version'],
        label=output_label(content, folder),
        network=content['Network'],
        channels=tuple(content['Channels']),
        required=tuple(tuple(names) for names in content['Required']),
        voxel_size=_three(float, content['VoxelSize']),
        normalisation=content['Normalisation'],
        threshold=float(content['Threshold']),
        minimum_lesion_volume=float(content['MinimumLesionVolume']),
        window=_three(int, content['Window']),
        overlap=float(content['Overlap']),
        sha256=content['Sha256'],
        folder=folder,
        content=content,
        thresholds=tuple(
            (frozenset(one['Channels']), float(one['Threshold']))
            for one in content.get('Thresholds', ())
        ),
        calibration=_calibration(content.get('Calibration')),
    )


def _calibration(content: Mapping[str, float] | None) -> Calibration:
    if content is None:
        return UNCHANGED
    return Calibration(float(content['Scale']), float(content['Shift']))


def _three(kind: Callable[[Any], Any], values: list[Any]) -> tuple[Any, Any, Any]:
    first, second, third = values
    return kind(first), kind(second), kind(third)


def output_label(content: dict[str, Any], folder: Path) -> str:
    """The ``desc-`` label of a model's outputs: empty for the bundled default, else the card's
    ``Label``, else the letters and digits of its name.
    """
    if folder.resolve() == BUNDLED / DEFAULT_MODEL:
        return ''
    return content.get('Label') or re.sub('[^0-9A-Za-z]', '', content['Name'])


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package, sorted."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob(f'*/{CARD_FILE}')))


def find_model(name: str | None, output_dir: Path) -> Card:
    """Find a model by name and read its card.

    Parameters
    ----------
    name : None for the default; a bundled name; the name of a folder in
        ``<output_dir>/models``; or the path of a folder. The first that exists is taken.

    Raises
    ------
    UnavailableError : there is no such model (the message lists those there are), or its card
        is damaged.
    """
    name = DEFAULT_MODEL if name is None else name
    site = output_dir / 'models'
    if name in bundled_models():
        return read_card(BUNDLED / name)
    for folder in (site / name, Path(name)):
        if name and os.path.isdir(folder):  # False for a name that no file can have
            card = read_card(folder.absolute())  # steps run in folders of their own
            _warn_of_copy(card)
            if card.refusal:
                _warn_once(f'{card.folder / CARD_FILE}: {card.refusal}')
            return card
    adapted = [path.parent.name for path in finished_files(site, f'*/{CARD_FILE}')]
    raise UnavailableError(
        f'there is no model {name!r}: bundled are {", ".join(bundled_models()) or "none"}; '
        f'in {site} there {"are " + ", ".join(adapted) if adapted else "is none"}',
        advice=f'Give one of these names, or the path of a folder with {CARD_FILE}.',
    )


def _warn_of_copy(card: Card) -> None:
    """A changed copy of a bundled model would write its results over those of the latter."""
    for name in bundled_models():
        own = read_card(BUNDLED / name)
        if own.label == card.label and own.identity != card.identity:
            _warn_once(
                f'{card.folder / CARD_FILE}: this model differs from the bundled {name}, and its '
                'results have the same names; give it another "Name" and "Label"'
            )


@functools.cache
def _warn_once(text: str) -> None:
    log.warning('%s', text)


def build_network(card: Card, *, seed: int | None = None) -> torch.nn.Module:
    """Build the network that a card describes, with random weights.

    Raises
    ------
    UnavailableError : the card lacks a parameter of the network, or one is impossible.
    """
    path = card.folder / CARD_FILE
    try:
        return new_network(card.network, seed=seed)
    except KeyError as error:
        raise bad_card(path, f'"Network": {error.args[0]!r} is missing or unknown') from None
    except NOT_BUILT as error:
        raise bad_card(path, f'"Network" cannot be built ({error})') from None


def load_network(card: Card, device: str | torch.device = 'cpu') -> torch.nn.Module:
    """Build the network of a card with its weights, in evaluation mode and float32.

    The state of torch's random generator is left as it was.

    Raises
    ------
    UnavailableError : the weights are missing, damaged, not those of the card, or do not fit
        the network (the message names the tensors); the network gives no lesions; or the
        device is not available.
    """
    import torch

    check_output(card)
    state = read_weights(card)
    with torch.random.fork_rng(devices=[]):
        network = build_network(card)
    check_tensors(network, state, card)
    network.load_state_dict(state)
    try:
        network = network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UnavailableError(
            f'the device {device} is not available ({str(error).splitlines()[0]})',
            advice='Use --device cpu, or check the GPU with nvidia-smi.',
        ) from None
    return network.eval()


def check_output(card: Card) -> None:
    """Check that a model marks lesions.

    Raises
    ------
    UnavailableError : it fills in images, as after self-supervised training.
    """
    if card.content.get('Output', LESION) != LESION:
        raise UnavailableError(
            f'{card.name} was trained to fill in images, not to mark lesions',
            advice='Give this model as "start" to ssl2 pretrain, and give the result here.',
            path=card.folder / CARD_FILE,
        )


def read_weights(card: Card) -> Tensors:
    """Read the tensors of a card's weights file in float32, after a check of its SHA-256.

    Raises
    ------
    UnavailableError : the file is missing, not the one that the card describes, or has values
        that are not numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = check_weights(card)
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise UnavailableError(
            f'the weights have values that are not finite numbers, in {", ".join(broken[:3])}',
            advice=COPY_AGAIN,
            path=path,
        )
    return state


def check_weights(card: Card) -> Path:
    """The weights file of a card, after a check of its SHA-256; no tensor is read.

    Raises
    ------
    UnavailableError : the file is missing, or not the one that the card describes.
    """
    path = card.folder / WEIGHTS_FILE
    try:
        digest = sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if digest != card.sha256:
        raise UnavailableError(
            f'its SHA-256 is {digest}, the card has {card.sha256}: the file is damaged or '
            'from another version',
            advice=ADAPT_AGAIN if 'Parent' in card.content else COPY_AGAIN,
            path=path,
        )
    return path


def check_unneeded_weights(card: Card) -> None:
    """:func:`check_weights` where nothing is left to segment: an absent file is accepted.

    The content may be a link that was not downloaded, or lie where this job cannot read.

    Raises
    ------
    UnavailableError : the file is not the one that the card describes.
    """
    path = card.folder / WEIGHTS_FILE
    if os.access(path, os.R_OK) and not pointer_of(path):
        check_weights(card)


def _unreadable(path: Path, error: Exception, what: str = 'weights') -> UnavailableError:
    advice = PERMISSIONS if isinstance(error, PermissionError) else COPY_AGAIN
    return UnavailableError(f'the {what} cannot be read ({error})', advice=advice, path=path)


def check_tensors(network: torch.nn.Module, state: Tensors, card: Card) -> None:
    """Check that names and shapes of stored tensors are exactly those of the network.

    Raises
    ------
    UnavailableError : naming the tensors that are missing, left over or of another shape.
    """
    faults = match(network, state).faults()
    for number, member in enumerate(card.network.get('Members', ())):
        if not any(name.startswith(f'members.{number}.') for name in state):
            faults = f'member {number} ({member["Type"]}) is missing'
            break
    if faults:
        raise UnavailableError(
            f'the weights do not fit the network {card.network["Type"]} of the card: {faults}',
            advice=COPY_AGAIN,
            path=card.folder / WEIGHTS_FILE,
        )


def write_model(
    folder: str | Path, network: torch.nn.Module, card_content: Mapping[str, Any]
) -> Card:
    """Store a network as a model: weights in half precision, then the card with their hash.

    Equal weights give equal bytes. The card is written last, so that a new folder holds a model
    or none; a stop while an old model is replaced leaves weights that the old card refuses.

    Parameters
    ----------
    card_content : of ``model.json``; ``Sha256`` and ``Network``'s ``Multiple`` are filled in.

    Raises
    ------
    UnavailableError : the card is not complete, or describes another network than this one.
    DataError : a weight is not finite, or too large for half precision.
    CannotWriteError, StorageError : see :func:`ssl2_bids.files.whole_file`.
    """
    import torch
    from safetensors.torch import save

    folder = Path(folder)
    content = {**card_content, 'Sha256': '0' * 64}
    check_card(content, folder / CARD_FILE, network_types=NETWORKS)
    needed = NETWORKS[content['Network']['Type']].multiple(content['Network'])
    content['Network'] = {'Multiple': needed, **content['Network']}
    remove_leftovers(folder)
    card = _card(content, folder)
    fit = match(build_network(card, seed=0), network.state_dict())
    if fit.faults():
        raise UnavailableError(
            f'the card describes another network than the one to be stored: {fit.faults()}',
            advice='Give the "Network" that this network was built from.',
            path=folder / CARD_FILE,
        )
    half = {
        name: tensor.detach().cpu().to(torch.float16).contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    if broken := [name for name, tensor in half.items() if not bool(tensor.isfinite().all())]:
        raise DataError(
            f'the network cannot be stored: not finite in half precision are {broken[0]}'
            + (f' and {len(broken) - 1} other tensors' if broken[1:] else ''),
            advice='The training has diverged: lower the learning rate, or store an earlier step.',
            path=folder / WEIGHTS_FILE,
        )
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(half))  # save_file gives a mode that others cannot read
    content['Sha256'] = sha256(folder / WEIGHTS_FILE)
    write_json(folder / CARD_FILE, content)
    return read_card(folder)
