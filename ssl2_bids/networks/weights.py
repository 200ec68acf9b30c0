"""Finding models, reading their cards and the checked loading of their weights.

A model is a folder with ``model.json`` (its card) and ``weights.safetensors``. Reading a card
needs no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import UnavailableError
from ssl2_bids.files import sha256
from ssl2_bids.networks.cards import (
    CARD_FILE,
    COPY_AGAIN,
    WEIGHTS_FILE,
    Card,
    bad_card,
    check_card,
)

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = 'bootstrap-3t'
BUNDLED = Path(__file__).resolve().parent.parent / 'resources' / 'weights'


def _fast_unet(network: dict[str, Any]) -> torch.nn.Module:
    from ssl2_bids.networks.fast_unet import FastUNet

    return FastUNet(
        inputs=network['InputChannels'],
        channels=network['Channels'],
        full=network['FullResolutionChannels'],
        outputs=network['OutputChannels'],
    )


NETWORKS: dict[str, Callable[[dict[str, Any]], torch.nn.Module]] = {'fast_unet': _fast_unet}


def read_card(folder: str | Path) -> Card:
    """Read and check the card of the model in a folder.

    Raises
    ------
    UnavailableError : the card is missing or damaged, or a key of it is missing, has another
        type or an impossible value; the message names file and key.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UnavailableError(
            'no such file, so the folder holds no model',
            advice=f'A model is a folder with {CARD_FILE} and {WEIGHTS_FILE}.',
            path=path,
        ) from None
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f'the card is damaged ({error})', advice=COPY_AGAIN, path=path
        ) from None
    check_card(content, path, network_types=NETWORKS)
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
    )


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
        if name and folder.is_dir():
            return read_card(folder)
    adapted = sorted(path.parent.name for path in site.glob(f'*/{CARD_FILE}'))
    raise UnavailableError(
        f'there is no model {name!r}: bundled are {", ".join(bundled_models()) or "none"}; '
        f'in {site} there {"are " + ", ".join(adapted) if adapted else "is none"}',
        advice=f'Give one of these names, or the path of a folder with {CARD_FILE}.',
    )


def build_network(card: Card) -> torch.nn.Module:
    """Build the network that a card describes, with random weights.

    Raises
    ------
    UnavailableError : the card lacks a parameter of the network, or one is impossible.
    """
    path = card.folder / CARD_FILE
    try:
        return NETWORKS[card.network['Type']](card.network)
    except KeyError as error:
        raise bad_card(path, f'"Network": {error.args[0]!r} is missing or unknown') from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise bad_card(path, f'"Network" cannot be built ({error})') from None


def load_network(card: Card, device: str | torch.device = 'cpu') -> torch.nn.Module:
    """Build the network of a card with its weights, in evaluation mode and float32.

    The state of torch's random generator is left as it was.

    Raises
    ------
    UnavailableError : the weights are missing, damaged, not those of the card, or do not fit
        the network (the message names the tensors); or the device cannot be had.
    """
    import torch

    state = read_weights(card)
    with torch.random.fork_rng(devices=[]):
        network = build_network(card)
    check_tensors(network, state, card)
    network.load_state_dict(state)
    try:
        network = network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UnavailableError(
            f'the device {device} cannot be had ({str(error).splitlines()[0]})',
            advice='Use --device cpu, or check the GPU with nvidia-smi.',
        ) from None
    return network.eval()


def read_weights(card: Card) -> dict[str, torch.Tensor]:
    """Read the tensors of a card's weights file in float32, after a check of its SHA-256.

    Raises
    ------
    UnavailableError : the file is missing, or not the one that the card describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = card.folder / WEIGHTS_FILE
    try:
        digest = sha256(path)
        if digest != card.sha256:
            raise UnavailableError(
                f'its SHA-256 is {digest}, the card says {card.sha256}: '
                'the file is damaged or of another version',
                advice=COPY_AGAIN,
                path=path,
            )
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UnavailableError(
            f'the weights cannot be read ({error})', advice=COPY_AGAIN, path=path
        ) from None


def check_tensors(network: torch.nn.Module, state: dict[str, torch.Tensor], card: Card) -> None:
    """Check that names and shapes of stored tensors are exactly those of the network.

    Raises
    ------
    UnavailableError : naming the tensors that are missing, left over or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    faults = [f'{name} is missing' for name in sorted(wanted.keys() - given.keys())]
    faults += [f'{name} is left over' for name in sorted(given.keys() - wanted.keys())]
    faults += [
        f'{name} has shape {given[name]} where {wanted[name]} is needed'
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name] != given[name]
    ]
    if faults:
        shown = '; '.join(faults[:8]) + (f'; and {len(faults) - 8} more' if faults[8:] else '')
        raise UnavailableError(
            f'the weights do not fit the network {card.network["Type"]} of the card: {shown}',
            advice=COPY_AGAIN,
            path=card.folder / WEIGHTS_FILE,
        )
