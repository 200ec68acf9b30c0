"""A checkpoint made small, in pieces, so that a run can move to another machine.

Weights are kept in half precision. What else fits into the limit is kept, in this order: the
difference of the averaged weights, then the optimiser's moments, both in 8 bits with one scale
for 256 numbers (as Dettmers et al., arXiv 2110.02861). Where the difference does not fit, the
run goes on from the averaged weights; where the moments do not, the loop warms up again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.files import sha256, whole_file, write_json
from ssl2_bids.training import checkpoint

INDEX = 'lean.json'
LIMIT = 40_000_000  # bytes of all pieces
PIECE = 16 * 2**20  # bytes of one
BLOCK = 256  # numbers that share a scale
CONTENTS = (('average', 'moments'), ('average',), ())  # beside the weights, the best first


def write_lean(folder: Path, content: Mapping[str, Any], *, limit: int = LIMIT) -> tuple[str, ...]:
    """Write a checkpoint's content into pieces and, last, their index.

    Parameters
    ----------
    content : as :func:`ssl2_bids.training.checkpoint.read` gives it.
    limit : bytes of all pieces.

    Returns
    -------
    What was kept beside the weights: of ``average`` and ``moments``.

    Raises
    ------
    UsageError : not even the weights fit into the limit.
    StorageError, CannotWriteError : as :func:`ssl2_bids.files.whole_file`.
    """
    for kept in CONTENTS:
        data = serialised(content, kept)
        if len(data) <= limit:
            break
    else:
        raise UsageError(
            f'the weights alone take {len(data) / 1e6:.1f} MB, more than {limit / 1e6:g} MB',
            advice='Allow more, or move the full checkpoint.',
            path=folder,
        )
    pieces = []
    for number, start in enumerate(range(0, len(data), PIECE)):
        path = folder / f'lean-{number:03d}.bin'
        with whole_file(path) as temporary:
            temporary.write_bytes(data[start : start + PIECE])
        pieces.append({'Name': path.name, 'Sha256': sha256(path)})
    index = {'Step': content['step'], 'Kept': list(kept), 'Bytes': len(data), 'Pieces': pieces}
    write_json(folder / INDEX, index)
    for path in folder.glob('lean-*.bin'):
        if path.name not in {piece['Name'] for piece in pieces}:
            path.unlink()
    return kept


def read_lean(folder: Path) -> dict[str, Any]:
    """The content of a lean checkpoint as that of a full one; ``optimiser`` may be None.

    Raises
    ------
    DataError : a piece is missing or damaged; it is named.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding='utf-8'))
        data = b''.join(_piece(folder / one['Name'], one['Sha256']) for one in index['Pieces'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'the lean checkpoint cannot be read ({error})',
            advice='Copy the folder again, with all its pieces.',
            path=folder / INDEX,
        ) from None
    return restored(torch.load(io.BytesIO(data), map_location='cpu', weights_only=True))


def _piece(path: Path, digest: str) -> bytes:
    if not path.is_file() or sha256(path) != digest:
        raise DataError(
            'the piece is missing or not the one that the index names',
            advice='Copy it again.',
            path=path,
        )
    return path.read_bytes()


def unpack(lean: Path, run: Path) -> Path:
    """Turn a lean checkpoint into one from which the loop goes on in the folder ``run``.

    Raises
    ------
    UsageError : the run is already further than that.
    """
    content = read_lean(lean)
    for path in checkpoint.checkpoints(run):
        if int(path.stem.split('-')[1]) >= content['step']:
            raise UsageError(
                f'the run is already as far as the lean checkpoint (step {content["step"]})',
                advice='Leave the lean checkpoint out, or give an empty folder.',
                path=path,
            )
    run.mkdir(parents=True, exist_ok=True)
    return checkpoint.save(run, content)


def serialised(content: Mapping[str, Any], kept: tuple[str, ...]) -> bytes:
    """The bytes of a checkpoint with no more than what is to be kept."""
    modules = {name: dict(state) for name, state in content['modules'].items()}
    average = content['average']
    predictor = content['predictor']
    lean = {key: content[key] for key in ('step', 'identity', 'predictor', 'task', 'history')}
    if average is not None and 'average' not in kept and predictor in modules:
        modules[predictor] = dict(average)  # the better of the two, where there is room for one
    lean['modules'] = {
        name: {key: _half(t) for key, t in state.items()} for name, state in modules.items()
    }
    lean['average'] = None
    if average is not None and 'average' in kept:
        base = lean['modules'].get(predictor, {})
        lean['average'] = {
            key: eight_bits(t.float() - base[key].float()) if key in base else _half(t)
            for key, t in average.items()
        }
    lean['averaged'] = average is not None
    lean['optimiser'] = _lean_moments(content['optimiser']) if 'moments' in kept else None
    stream = io.BytesIO()
    torch.save(lean, stream)
    return stream.getvalue()


def restored(lean: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`serialised`, as far as that goes."""
    content = dict(lean)
    content['modules'] = {
        name: {key: _full(t) for key, t in state.items()}
        for name, state in lean['modules'].items()
    }
    base = content['modules'].get(lean['predictor'], {})
    if lean['average'] is not None:
        content['average'] = {
            key: base[key] + from_eight_bits(t) if isinstance(t, dict) else _full(t)
            for key, t in lean['average'].items()
        }
    elif content.pop('averaged'):
        content['average'] = {key: tensor.clone() for key, tensor in base.items()}
    content.pop('averaged', None)
    if lean['optimiser'] is not None:
        content['optimiser'] = _full_moments(lean['optimiser'])
    return content


def eight_bits(tensor: Tensor, *, root: bool = False) -> dict[str, Any]:
    """A tensor in 8 bits per number.

    Parameters
    ----------
    root : store square roots of numbers that are not negative, rounded up: a second moment
        that became 0 would make a step huge.
    """
    flat = tensor.detach().float().flatten()
    if root:
        flat = flat.sqrt()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    steps = 255 if root else 127
    scale = padded.abs().amax(dim=1, keepdim=True) / steps
    units = padded / scale.clamp_min(torch.finfo(torch.float32).tiny)
    codes = units.ceil().clamp(0, 255).byte() if root else units.round().to(torch.int8)
    return {
        'codes': codes.view(-1)[: len(flat)].clone(),
        'scale': scale[:, 0],
        'shape': list(tensor.shape),
        'root': root,
    }


def from_eight_bits(stored: Mapping[str, Any]) -> Tensor:
    """The numbers that :func:`eight_bits` stored."""
    codes = stored['codes'].float()
    padded = torch.nn.functional.pad(codes, (0, -len(codes) % BLOCK)).view(-1, BLOCK)
    flat = (padded * stored['scale'][:, None]).flatten()[: len(codes)]
    return (flat**2 if stored['root'] else flat).view(stored['shape'])


def _half(tensor: Tensor) -> Tensor:
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _lean_moments(state: Mapping[str, Any]) -> dict[str, Any]:
    moments = {
        number: {
            'step': one['step'],
            'exp_avg': eight_bits(one['exp_avg']),
            'exp_avg_sq': eight_bits(one['exp_avg_sq'], root=True),
        }
        for number, one in state['state'].items()
    }
    return {'state': moments, 'param_groups': state['param_groups']}


def _full_moments(state: Mapping[str, Any]) -> dict[str, Any]:
    moments = {
        number: {
            'step': one['step'],
            'exp_avg': from_eight_bits(one['exp_avg']),
            'exp_avg_sq': from_eight_bits(one['exp_avg_sq']),
        }
        for number, one in state['state'].items()
    }
    return {'state': moments, 'param_groups': state['param_groups']}
