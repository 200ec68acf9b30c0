"""Starting a network from the weights of another, with a report; too few weights are an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ssl2_bids.errors import UnavailableError

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = 'Mapping[str, torch.Tensor]'


@dataclass(frozen=True)
class Loaded:
    """Names of the tensors that were loaded into a network, and of those that were not.

    Attributes
    ----------
    loaded : names.
    missing : of the network's tensors, those that were not given.
    unexpected : given, but not in the network.
    mismatched : given in another shape than the network's, each with both shapes in words.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the network's tensors that were loaded; 0 of none."""
        return len(self.loaded) / self.wanted if self.wanted else 0.0

    @property
    def wanted(self) -> int:
        """How many tensors the network has."""
        return len(self.loaded) + len(self.missing) + len(self.mismatched)

    def faults(self) -> str:
        """What does not fit, in words; the first eight tensors by name."""
        faults = [f'{name} is missing' for name in self.missing]
        faults += [f'{name} is left over' for name in self.unexpected]
        faults += self.mismatched
        return '; '.join(faults[:8]) + (f'; and {len(faults) - 8} more' if faults[8:] else '')


def match(network: torch.nn.Module, state: Tensors, *, part: str | tuple[str, ...] = '') -> Loaded:
    """Compare the tensors of a state with those of a network, by name and shape."""
    own, theirs = network.state_dict(), dict(state)
    wanted = {name: tuple(own[name].shape) for name in own if name.startswith(part)}
    given = {name: tuple(theirs[name].shape) for name in theirs if name.startswith(part)}
    common = sorted(wanted.keys() & given.keys())
    return Loaded(
        loaded=tuple(name for name in common if wanted[name] == given[name]),
        missing=tuple(sorted(wanted.keys() - given.keys())),
        unexpected=tuple(sorted(given.keys() - wanted.keys())),
        mismatched=tuple(
            f'{name} has shape {given[name]} where {wanted[name]} is needed'
            for name in common
            if wanted[name] != given[name]
        ),
    )


def initialise(
    network: torch.nn.Module,
    state: Tensors,
    *,
    minimum_share: float = 0.95,
    part: str | tuple[str, ...] = '',
) -> Loaded:
    """Start a network from another's weights, as far as names and shapes agree.

    Parameters
    ----------
    network : changed in place.
    state : tensors by the names of ``state_dict``; a ``module.`` or ``_orig_mod.`` before all of
        them is taken off.
    minimum_share : of the network's tensors that must be loaded, 0 to 1.
    part : only tensors whose names begin so are loaded and counted (``'encoder.'``).

    Raises
    ------
    UnavailableError : fewer were loaded; it names the others, and the network is unchanged.
    """
    for wrapping in ('module.', '_orig_mod.', 'module.'):
        if state and all(name.startswith(wrapping) for name in state):
            state = {name.removeprefix(wrapping): tensor for name, tensor in state.items()}
    found = match(network, state, part=part)
    if found.share < minimum_share:
        raise UnavailableError(
            f'only {len(found.loaded)} of the {found.wanted} tensors that the network needs can '
            f'be taken from these weights: {found.faults()}',
            advice='Give weights of the same type of network with the same parameters.',
        )
    network.load_state_dict({name: state[name] for name in found.loaded}, strict=False)
    return found
