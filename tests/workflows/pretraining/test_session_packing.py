"""What training packs is what the App prepares: the same images, masks and corrections."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

from ssl2_bids.steps.network_input import network_input
from ssl2_bids.training.data.participants import to_bytes
from ssl2_bids.volume import read
from ssl2_bids.workflows.participant import brain_nodes, nodes
from ssl2_bids.workflows.pretraining.pack import find_sessions
from ssl2_bids.workflows.pretraining.sessions import pack_session, preparation_card


def mp2rage(noise: float = 3.0) -> dict[str, nib.Nifti1Image]:
    """UNIT1 from 0 to 4095 with its salt and pepper, and the two magnitudes."""
    tissue = np.asarray(brain_image().dataobj) / 100
    random = np.random.default_rng(1)

    def received(signal):
        real, imaginary = random.normal(0, noise, (2, *signal.shape))
        return signal + real + 1j * imaginary

    first, second = received(30 * tissue), received(120 * tissue)
    ratio = (np.conj(first) * second).real / (abs(first) ** 2 + abs(second) ** 2)
    stored = ((ratio + 0.5) * 4095, abs(first), abs(second))
    images = [nib.Nifti1Image(d.astype(np.float32), brain_image().affine) for d in stored]
    return dict(zip(('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE'), images, strict=True))


def session_of(make_dataset, images):
    files = {f'sub-01/anat/sub-01_{name}.nii.gz': image for name, image in images.items()}
    (session,) = find_sessions(make_dataset(files), preparation_card().channels)
    return session


def prepared_by_the_app(session, contrast, mode):
    """The image as the App's nodes leave it for the network, and its brain mask."""
    scan = session.scans[contrast]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in scan.sources]
    made = nodes.prepare(scan, digests)
    image = made['image']
    mask = brain_nodes.find_brain(image, made['brain_source'], contrast, mode, None, 1, '')['mask']
    even = nodes.correct_inhomogeneity(image, mask, contrast, scan.field_strength, False)['image']
    return read(even, contrast=contrast), read(mask, dtype=np.uint8)


@pytest.mark.parametrize(
    'names',
    [
        ('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE'),
        ('UNIT1',),
        ('FLAIR',),
        ('echo-1_T2starw', 'echo-2_T2starw'),
    ],
)
def test_the_packed_image_is_what_the_app_prepares(make_dataset, tmp_path, monkeypatch, names):
    images = mp2rage() | {'FLAIR': brain_image()}
    images |= {f'echo-{n}_T2starw': brain_image(seed=n) for n in (1, 2)}
    session = session_of(make_dataset, {name: images[name] for name in names})
    contrast = names[0].rpartition('_')[2]
    mode = 'skip' if contrast == 'UNIT1' else 'auto'  # air with noise is no stripped image
    packed = pack_session(session, (), strip=mode)
    monkeypatch.chdir(tmp_path)
    image, mask = prepared_by_the_app(session, contrast, mode)
    ready = network_input({contrast: image}, {}, mask, preparation_card())
    (channel,) = [c for c in ready.present if c is not None]
    values = ready.tensor[ready.present.index(channel)].numpy()
    assert packed.present == tuple(c is not None for c in ready.present)
    stored = packed.image[ready.present.index(channel)]
    assert np.array_equal(stored, to_bytes(values, values != 0))
    assert np.array_equal(packed.brain, ready.brain.numpy())


def test_inversion_images_take_the_noise_of_the_air_away(make_dataset, tmp_path, monkeypatch):
    session = session_of(make_dataset, mp2rage())
    stored = np.asarray(nib.load(session.scans['UNIT1'].paths[0]).dataobj)
    monkeypatch.chdir(tmp_path)
    image, _ = prepared_by_the_app(session, 'UNIT1', 'skip')
    assert stored[:4].std() > 1000
    assert image.data[:4].std() < 200


def test_a_damaged_inversion_image_costs_itself(make_dataset, tmp_path):
    session = session_of(make_dataset, mp2rage())
    alone = session_of(
        lambda files: make_dataset(files, name='alone'), {'UNIT1': mp2rage()['UNIT1']}
    )
    inversion = session.scans['UNIT1'].inversions[0]
    inversion.write_bytes(inversion.read_bytes()[:-2000])
    packed, expected = (pack_session(s, (), strip='skip') for s in (session, alone))
    assert packed.present == expected.present
    assert np.array_equal(packed.image, expected.image)
