#!/usr/bin/env python3
"""Which images are flagged: good ones, and those that were spoiled on purpose.

    python benchmarks/image_quality.py SIMULATED/sub-01 ../shared/data/t1w-3t/sub-cl* [--spoil]

Each PARTICIPANT is a folder of a BIDS dataset; every contrast of it is prepared as the App does,
its brain found and the template registered to it. The first table has the numbers from which the
thresholds of ssl2_bids/steps/image_checks.py come, with the CPU seconds of the measurement;
``--spoil`` adds a row for each fault: noise, ghosts along an axis, another name of the contrast.
MASKS keeps masks and transforms between calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brain_flags import kept_file, scans_of

from ssl2_bids.files import whole_file
from ssl2_bids.steps import brain, image_checks, preprocess
from ssl2_bids.steps.image_quality import measure_image
from ssl2_bids.steps.template import register_to_template
from ssl2_bids.volume import Volume

COLUMNS = (
    'tissue_snr', 'tissue_cnr', 'wm2gm', 'csf2wm', 'snr_wm', 'snrd_wm', 'cnr', 'cjv', 'efc',
    'fber', 'wm2max', 'inu_range', 'ghosts',
)  # fmt: skip
NOISY = (2.0, 4.0)  # median in the brain mask over the noise that is added
GHOST = 0.15  # share of the image that is seen again, shifted by a third
NAMES = ('T1w', 'T2w', 'FLAIR')


def spoiled(image: Volume, level: float) -> Iterator[tuple[str, Volume]]:
    """The image with a fault, and its name.

    Parameters
    ----------
    level : median in the brain mask.
    """
    draw = np.random.default_rng(0)
    for ratio in NOISY if image.contrast != 'UNIT1' else ():
        real, other = (draw.normal(0, level / ratio, image.shape) for _ in range(2))
        yield f'SNR {ratio:g}', image.with_data(np.hypot(image.data + real, other))
    if image.contrast != 'UNIT1':
        shifted = np.roll(image.data, image.shape[1] // 3, axis=1)
        yield 'ghost', image.with_data(image.data + np.float32(GHOST) * shifted)
    for name in NAMES:
        if name != image.contrast and (name, image.contrast) != ('T1w', 'UNIT1'):
            yield f'named {name}', replace(image, contrast=name)


def row(name: str, fault: str, image: Volume, mask: Volume, to_template: np.ndarray) -> set[str]:
    """Print the numbers of an image; the codes of its flags."""
    corrected = preprocess.without_inhomogeneity(image, mask)
    started = time.process_time()
    found = measure_image(
        image,
        corrected,
        mask,
        to_reference=np.eye(4),
        to_template=to_template,
        brain_only=brain.is_brain_only(image),
        is_corrected=preprocess.needs_n4(image.contrast, None),
    )
    seconds = time.process_time() - started
    codes = {flag.code for flag in image_checks.check_image(found.metrics, image.contrast)}
    cells = ['' if found.metrics.get(c) is None else f'{found.metrics[c]:.3g}' for c in COLUMNS]
    shown = ', '.join(sorted(codes)) or 'none'
    print(f'| {name} | {fault} | {" | ".join(cells)} | {shown} | {seconds:.1f} |', flush=True)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('participant', nargs='+', type=Path)
    parser.add_argument('--spoil', action='store_true', help='also with each fault')
    parser.add_argument('--masks', type=Path, help='folder that keeps masks and transforms')
    arguments = parser.parse_args()
    columns = ('image', 'fault', *COLUMNS, 'flags', 'CPU seconds')
    print(f'| {" | ".join(columns)} |\n{"| --- " * len(columns)}|')
    good, wrong = [], []
    for folder in arguments.participant:
        for name, image, mask in scans_of(folder, arguments.masks):
            kept = kept_file(arguments.masks, folder, name, '.npy') if arguments.masks else None
            if kept and kept.exists():
                matrix = np.load(kept)
            else:
                matrix = register_to_template(image, mask).matrix
                if kept:
                    with whole_file(kept) as temporary, open(temporary, 'wb') as stream:
                        np.save(stream, matrix)
            to_template = np.linalg.inv(matrix)
            good.append(row(name, '', image, mask, to_template))
            level = float(np.median(image.data[mask.data > 0]))
            for fault, other in spoiled(image, level) if arguments.spoil else ():
                wrong.append(row(name, fault, other, mask, to_template))
    print(f'\nflagged: {sum(map(bool, good))} of {len(good)} good images')
    if wrong:
        print(f'flagged: {sum(map(bool, wrong))} of {len(wrong)} spoiled images')


if __name__ == '__main__':
    main()
