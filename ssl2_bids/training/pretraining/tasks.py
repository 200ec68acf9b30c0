"""The supervised stage of pretraining, and the validation on whole simulated heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl2_bids.metrics.lesionwise import anima
from ssl2_bids.networks.architectures.committee import Committee, members_of, plain_name
from ssl2_bids.networks.inference import predict
from ssl2_bids.networks.initialisation import Loaded, initialise
from ssl2_bids.settings import MINIMUM_LESION_VOLUME
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.synthesis.heads import Head
from ssl2_bids.synthesis.randomised import Patches, draw
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import box_of
from ssl2_bids.training.instances import lesion_cross_entropy, lesion_weights
from ssl2_bids.training.losses import cross_entropy, dice, focal_tversky_loss

ENCODER = ('stem.', 'enc.', 'encoder.')
LAST = 'out.'
VALIDATION = 7_000_000  # first number of the seeds of validation: no training step has it
DRAWS = 20  # of a scan of validation at most; about one in three has no lesion
DEFAULT_THRESHOLD = 0.5  # where no scan of validation has a lesion
THRESHOLDS = tuple(round(0.1 + 0.05 * n, 2) for n in range(13))


@dataclass
class SupervisedStage:
    """The supervised stage: lesions of known truth.

    Attributes
    ----------
    network : (N, C, D, H, W) to (N, 1, D, H, W) logits; members of a committee learn side by
        side from the same batches, each by itself.
    cross_entropy : weight of that term beside the Dice loss.
    focal_tversky : weight of the term that raises the recall of small lesions.
    lesion_cross_entropy : weight of the term in which each lesion counts the same.
    frozen : steps in which the encoder rests, while a new last layer finds its feet.
    """

    network: nn.Module
    cross_entropy: float = 4.0
    focal_tversky: float = 0.3
    lesion_cross_entropy: float = 0.0
    frozen: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """All that is optimised."""
        return {'network': self.network}

    def loss(self, batch: Patches, step: int) -> tuple[Tensor, dict[str, Any]]:
        """Dice, cross-entropy, the focal Tversky term and that of single lesions."""
        if self.frozen:
            for parameter in encoder_of(self.network):
                parameter.requires_grad_(step >= self.frozen)
        weights = None
        if self.lesion_cross_entropy:
            weights = lesion_weights(batch.label, batch.known)
        losses, scores = [], {}
        members = members_of(self.network)
        for number, member in enumerate(members):
            logits = member(batch.image)
            losses.append(self.loss_of(logits, batch, weights))
            name = f'dice_{number}' if len(members) > 1 else 'dice'
            scores[name] = training_dice(logits.detach(), batch)
        return torch.stack(losses).mean(), scores

    def loss_of(self, logits: Tensor, batch: Patches, weights: Tensor | None) -> Tensor:
        """The loss of one network's logits; ``weights`` of :func:`lesion_weights` or none."""
        loss = dice(logits, batch.label, batch.known)
        loss = loss + self.cross_entropy * cross_entropy(logits, batch.label, batch.known)
        if self.focal_tversky:
            term = focal_tversky_loss(logits, batch.label, batch.known, weigh_small=True)
            loss = loss + self.focal_tversky * term
        if weights is not None:
            term = lesion_cross_entropy(logits, batch.label, weights)
            loss = loss + self.lesion_cross_entropy * term
        return loss

    def after_step(self, step: int) -> None:
        """Nothing."""

    def predictor(self) -> nn.Module:
        """The network itself."""
        return self.network


def training_dice(logits: Tensor, batch: Patches) -> Tensor:
    """Dice of a batch at probability 0.5, pooled, where the label is known."""
    marked = (logits > 0) * batch.known
    common = (marked * batch.label).sum()
    both = marked.sum() + (batch.label * batch.known).sum()
    return (2 * common + 1) / (both + 1)


def encoder_of(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network's encoder, by the names under which tensors are stored."""
    named = network.state_dict(keep_vars=True)
    return [p for name, p in named.items() if plain_name(name).startswith(ENCODER) and p.is_leaf]


def start_from(network: nn.Module, tensors: Mapping[str, Tensor]) -> Loaded:
    """Start a network from the weights of another stage, whose last layer may differ.

    The calibration of a committee's members stays behind: it is of weights that are about to
    change.

    Raises
    ------
    UnavailableError : fewer than 95 % of the other tensors fit.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not is_last(name)}
    last = {name: tensor for name, tensor in tensors.items() if is_last(name)}
    parts = tuple(sorted({part_of(name) for name in network.state_dict() if not is_last(name)}))
    found = initialise(network, kept, part=parts)
    if all(network.state_dict()[name].shape == last[name].shape for name in last):
        network.load_state_dict(last, strict=False)
    if isinstance(network, Committee):
        network.uncalibrate()
    return found


def is_last(name: str) -> bool:
    """Whether a tensor belongs to the last layer of a network or of a committee's member."""
    return plain_name(name).startswith(LAST)


def part_of(name: str) -> str:
    """What the name of a tensor begins with: its module, within its member."""
    inner = plain_name(name)
    return name.removesuffix(inner) + inner.split('.')[0]


def whole_heads(
    heads: Sequence[Head],
    randomisation: Randomisation,
    *,
    seed: int,
    device: str = 'cpu',
    multiple: int = 16,
    contrasts: tuple[str, ...] | None = None,
    lesions: bool = False,
) -> list[Patches]:
    """One simulated scan of each head as a whole, always the same ones; on the CPU.

    Parameters
    ----------
    multiple : sizes are rounded up to it.
    contrasts : the channels that are there; drawn for each head where None.
    lesions : draw a scan without a lesion again, up to 20 times.

    Returns
    -------
    Batches of one; images in half precision, masks as bool.
    """
    volumes = []
    for number, head in enumerate(heads):
        first, second, third = (-(-size // multiple) * multiple for size in head.groups.shape)
        for attempt in range(DRAWS if lesions else 1):
            one = draw(
                [head],
                randomisation,
                seed=(seed, VALIDATION, number + attempt * len(heads)),
                batch=1,
                patch=(first, second, third),
                device=device,
                contrasts=contrasts,
            )
            masks = (mask.cpu() > 0 for mask in (one.brain, one.label, one.known))
            found = Patches(one.image.half().cpu(), one.present.cpu(), *masks)
            if has_lesion(found):
                break
        volumes.append(found)
    return volumes


def has_lesion(volume: Patches) -> bool:
    """Whether any voxel is known to be lesion."""
    return bool((volume.label.bool() & volume.known.bool()).any())


def whole_scans(scans: Sequence[Participant], *, multiple: int = 16) -> list[Patches]:
    """Scans that have a label, as :func:`whole_heads` gives simulated ones."""
    volumes = []
    for scan in scans:
        if scan.label is not None:
            size = -(-np.array(scan.brain.shape) // multiple) * multiple
            image, masks = box_of(scan, np.zeros(3, int), size)
            brain, label, known = (mask[None] for mask in (masks > 0).split(1))
            present = torch.tensor(scan.present)[None]
            volumes.append(Patches(image[None].half(), present, brain, label, known))
    return volumes


@dataclass
class WholeVolumes:
    """Validation: Dice of whole volumes, by the very inference of a run.

    Attributes
    ----------
    volumes : (1, C, D, H, W) images with their truth.
    """

    volumes: Sequence[Patches]
    window: tuple[int, int, int]
    overlap: float = 0.25
    device: str = 'cpu'
    precision: str = 'auto'
    probabilities: list[Tensor] = field(default_factory=list)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Mean Dice at 0.5 over the volumes; the probabilities are kept."""
        self.probabilities = [self.probability(network, volume) for volume in self.volumes]
        scores = [
            volume_dice(p, volume, 0.5)
            for p, volume in zip(self.probabilities, self.volumes, strict=True)
        ]
        return {'validation_dice': sum(scores) / max(len(scores), 1)}

    def probability(self, network: nn.Module, volume: Patches) -> Tensor:
        """(D, H, W) float32."""
        return predict(
            network,
            volume.image[0].float(),
            volume.brain[0, 0].bool(),
            window=self.window,
            overlap=self.overlap,
            device=self.device,
            precision=self.precision,
        )


def volume_dice(probability: Tensor, volume: Patches, threshold: float) -> float:
    """Dice of what lies above a threshold with the truth, where it is known; 1 if both empty."""
    marked, truth = _marked(probability, volume, threshold)
    total = int(marked.sum()) + int(truth.sum())
    return 2 * int((marked & truth).sum()) / total if total else 1.0


def lesion_f1(probability: Tensor, volume: Patches, threshold: float) -> float:
    """F1 of lesions of 3 mm^3 and more by the rule of MSSEG; voxels of 1 mm.

    Where one shared voxel sufficed, a network that marks the whole brain would have an F1 of 1.
    """
    maps = (
        label_instances(mask.numpy(), voxel_volume=1.0, minimum_volume=MINIMUM_LESION_VOLUME)
        for mask in _marked(probability, volume, threshold)
    )
    found, true = maps
    return anima(true, found).f1


def _marked(probability: Tensor, volume: Patches, threshold: float) -> tuple[Tensor, Tensor]:
    known = volume.known[0, 0].bool()
    return (probability > threshold) & known, volume.label[0, 0].bool() & known


def choose_threshold(
    probabilities: Sequence[Tensor], volumes: Sequence[Patches]
) -> tuple[float, dict[str, float]]:
    """The threshold of 0.1, 0.15, ... 0.7 with the best mean of Dice and lesion F1.

    Volumes without a lesion have no part in it: their Dice is 1 for an empty mask and else 0.

    Parameters
    ----------
    probabilities : (D, H, W) of each volume.
    volumes : batches of one with their truth.

    Returns
    -------
    The threshold, and the means over the volumes with a lesion at it; 0.5 and nothing where no
    volume has one.
    """
    pairs = [(p, v) for p, v in zip(probabilities, volumes, strict=True) if has_lesion(v)]
    if not pairs:
        return DEFAULT_THRESHOLD, {}
    best, scores = DEFAULT_THRESHOLD, {'Dice': 0.0, 'LesionF1': 0.0}
    for threshold in THRESHOLDS:
        means = {
            'Dice': float(np.mean([volume_dice(p, v, threshold) for p, v in pairs])),
            'LesionF1': float(np.mean([lesion_f1(p, v, threshold) for p, v in pairs])),
        }
        if sum(means.values()) > sum(scores.values()):
            best, scores = threshold, means
    return best, scores
