"""What a scanner stores of a head: coil, slices, distortion, noise, magnitudes and phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssl2_bids.simulation.anatomy.tissues import read_tissues
from ssl2_bids.simulation.scanner.artefacts import (
    Artefacts,
    apply,
    dephasing,
    distort,
    draw_artefacts,
)
from ssl2_bids.simulation.scanner.fields import (
    HYDROGEN,
    ReceiveDraw,
    draw_receive,
    echo_phase,
    receive_map,
    receive_phase,
)
from ssl2_bids.simulation.scanner.grids import (
    Placement,
    draw_placement,
    place,
    sample,
    voxel_steps,
)
from ssl2_bids.simulation.scanner.protocols import WITH_PHASE, Geometry, Protocol, Scanner
from ssl2_bids.simulation.scanner.rendering import FATS, HeadInScanner, render
from ssl2_bids.simulation.scanner.sequences import signals, stored_uniform, uniform
from ssl2_bids.volume import Volume

WHITE_MATTER = 600.0  # stored value of white matter
MAX_VALUE = 32767.0  # of the whole numbers that are stored
FAT_SHIFT = -3.4  # parts per million, of fat's frequency against water's
RINGING = 0.3  # share of the scans whose k-space was cut


@dataclass(frozen=True)
class ScanDraw:
    """One scan: where the head lies, the coil's gain, and the faults of the day."""

    placement: Placement
    receive: ReceiveDraw
    artefacts: Artefacts


@dataclass(frozen=True)
class Image:
    """One image as the scanner stores it; ``volume.contrast`` is its BIDS suffix.

    Attributes
    ----------
    volume : whole numbers (int16); float32 radians if it is a phase.
    inversion, echo : which one of the sequence, from 1; 0 where there is one only.
    phase : whether it is a phase; all others are magnitudes, or UNIT1.
    """

    volume: Volume
    inversion: int = 0
    echo: int = 0
    phase: bool = False


def draw_scan(
    random: np.random.Generator, scanner: Scanner, *, motion: float = 0.0, spikes: float = 0.0
) -> ScanDraw:
    """Draw a scan.

    Parameters
    ----------
    motion, spikes : probability of motion, and of spikes in k-space.
    """
    placement = draw_placement(random)
    receive = draw_receive(random, scanner.receive)
    moves, struck, rings, severity = random.random(4)
    count = int(random.integers(1, 4))
    artefacts = draw_artefacts(
        random,
        snr=scanner.snr,
        motion=0.5 + severity if moves < motion else 0.0,
        spikes=count if struck < spikes else 0,
        ringing=bool(rings < RINGING),
    )
    return ScanDraw(placement, receive, artefacts)


def grid_of(head: HeadInScanner, scanner: Scanner, suffix: str, draw: ScanDraw) -> Volume:
    """The empty grid of a scan of a head."""
    return place(draw.placement, scanner.geometries[suffix], head.centre, suffix)


def scan(
    head: HeadInScanner,
    scanner: Scanner,
    suffix: str,
    draw: ScanDraw,
    *,
    whole_head: bool = False,
    phase: bool = False,
) -> Iterator[Image]:
    """Scan a head with one sequence of a scanner, image by image.

    Parameters
    ----------
    suffix : of the sequence; ``UNIT1`` gives the two inversion images (``MP2RAGE``) and then
        UNIT1, ``MEGRE`` its echoes.
    whole_head : keep what lies outside the brain. Without, it is zero, but for MP2RAGE, where a
        scanner gives noise around.
    phase : also the phase images of MP2RAGE and MEGRE.
    """
    protocol, geometry = scanner.protocols[suffix], scanner.geometries[suffix]
    grid = grid_of(head, scanner, suffix, draw)
    pose = draw.placement.pose
    several = protocol.kind in WITH_PHASE
    white = white_signal(protocol, head.field)
    inside: np.ndarray | bool = True
    if not whole_head and protocol.kind != 'mp2rage':
        inside = sample(head.brain.astype(np.float32), head.affine, grid, pose) >= 0.5
    error = None
    if protocol.bandwidth or (phase and several):
        error = sample(head.off_resonance, head.affine, grid, pose, box=head.box, thin=True)
    middle = (np.array(pose) @ [*head.centre, 1])[:3]
    gain = receive_map(draw.receive, grid.shape, grid.affine, middle)
    artefacts = draw.artefacts.with_averages(protocol.averages)
    pair = []
    for number, image in enumerate(receive_images(head, protocol, geometry, grid, pose, error)):
        image *= gain
        noisy = apply(
            image,
            artefacts,
            white=white,
            phase_axis=geometry.phase_axis,
            spacing=float(grid.spacing[geometry.phase_axis]),
            image_number=number,
        )
        name = 'MP2RAGE' if protocol.kind == 'mp2rage' else suffix
        inversion = number + 1 if protocol.kind == 'mp2rage' else 0
        echo = number + 1 if protocol.kind == 'megre' else 0
        stored = stored_magnitude(noisy, white) * inside
        yield Image(Volume(stored, grid.affine, name), inversion, echo)
        if phase and several and error is not None:
            te = protocol.echo_times[number if protocol.echoes else 0]
            coil = receive_phase(draw.receive, grid.shape, grid.affine, middle)
            turned = echo_phase(error, te, coil + np.angle(noisy)) * inside
            yield Image(Volume(turned, grid.affine, name), inversion, echo, phase=True)
        if name == 'MP2RAGE':
            pair.append(noisy)
    if pair:
        yield Image(Volume(stored_uniform(uniform(*pair)), grid.affine, suffix))


def white_signal(protocol: Protocol, field: float) -> float:
    """Signal of white matter in the image that noise and stored values refer to."""
    images = signals(read_tissues(field)['wm'], protocol)
    return abs(float(images[1 if protocol.kind == 'mp2rage' else 0]))


def receive_images(
    head: HeadInScanner,
    protocol: Protocol,
    geometry: Geometry,
    grid: Volume,
    pose: tuple[tuple[float, ...], ...],
    error: np.ndarray | None,
) -> Iterator[np.ndarray]:
    """Signed images on a scan's grid, displaced along the readout, one after the other.

    Parameters
    ----------
    error : of the static field in Hz on that grid; None displaces nothing.
    """
    water = render(head, protocol)
    fatty = any(part.name in FATS for part in head.parts)
    fat = render(head, protocol, names=FATS) if fatty else []
    for number in range(protocol.image_count):
        parts = [water[number], *fat[number : number + 1]]
        water[number] = np.empty(0)
        if protocol.kind in ('gre', 'megre'):
            steps = voxel_steps(grid, head.spacing)
            left = dephasing(head.off_resonance, protocol.echo_times[number], steps)
            parts = [part * left for part in parts]
        images = [sample(part, head.affine, grid, pose, share=geometry.share) for part in parts]
        if error is not None and protocol.bandwidth:
            away = np.float32(FAT_SHIFT * HYDROGEN * head.field)
            images = [
                distort(image, shift, bandwidth=protocol.bandwidth, axis=geometry.readout_axis)
                for image, shift in zip(images, (error, error + away), strict=False)
            ]
        yield images[0] if len(images) == 1 else images[0] + images[1]


def stored_magnitude(image: np.ndarray, white: float) -> np.ndarray:
    """Magnitude as whole numbers (int16), white matter at 600."""
    scaled = np.abs(image)
    scaled *= np.float32(WHITE_MATTER / white)
    return np.rint(np.minimum(scaled, MAX_VALUE, out=scaled), out=scaled).astype(np.int16)
