"""The rotation: orthonormal, the same bits on every path, and free of the lattice that plain rounds leave."""

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, gauss, same_bits

from compressors.hadamard import COLUMNS, LEAST, ROWS, Blocks, cut, rotate, rotate_back, rotated_size, sign_words

LENGTHS = (1, 63, 64, 65, 300, 4_000, 4_096, 70_001, 2 * ROWS * COLUMNS + 5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rotation_keeps_lengths_and_its_transpose_undoes_it(length, dtype):
    x, runs = torch.from_numpy(gauss(length)).to(dtype), cut([(0, length)])
    z = rotate(x, runs, KEY)
    precise = 100 * torch.finfo(dtype).eps
    assert z.shape == (rotated_size(runs),)
    assert float(z.norm()) == pytest.approx(float(x.norm()), rel=precise)
    assert torch.allclose(rotate_back(z, runs, KEY, length), x, rtol=0, atol=precise)


def test_the_matrix_of_a_chunk_is_orthonormal_with_entries_near_one_over_root_n():
    runs = cut([(0, LEAST)])
    matrix = torch.stack([rotate(unit, runs, KEY) for unit in torch.eye(LEAST, dtype=torch.float64)], 1)
    assert torch.allclose(matrix @ matrix.T, torch.eye(LEAST, dtype=torch.float64), atol=1e-12)
    back = torch.stack([rotate_back(unit, runs, KEY, LEAST) for unit in torch.eye(LEAST, dtype=torch.float64)], 1)
    assert torch.allclose(matrix.T, back, atol=1e-12)
    assert float(matrix.abs().max()) < 5 / LEAST**0.5


@pytest.mark.parametrize("length", [1, 256, 4_000, 70_001, 300_000])
def test_padding_is_less_than_a_sixteenth_or_128_entries(length):
    for length_ in range(length, length + 130):
        runs = cut([(0, length_)])
        assert rotated_size(runs) - length_ < max(LEAST, length_ / 16)
        assert runs[-1].stop == length_
        assert all(run.place % LEAST == 0 and run.rows >= LEAST for run in runs)


def test_spans_share_no_chunk():
    spans = [(0, 300), (310, 70_000), (70_000, 70_064)]
    runs, x = cut(spans), torch.from_numpy(gauss(70_064))
    for start, stop in spans:
        only = torch.zeros_like(x)
        only[start:stop] = x[start:stop]
        back = rotate_back(rotate(only, runs, KEY), runs, KEY, len(x))
        assert torch.allclose(back, only, atol=1e-12)
        assert int((rotate(only, runs, KEY) != 0).sum()) <= rotated_size(cut([(start, stop)]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_and_arrays_take_the_same_steps_to_the_same_bits(dtype):
    x = torch.from_numpy(gauss(300_000)).to(dtype)
    runs = cut([(0, 300_000)])
    words = sign_words(runs, KEY)
    for run in runs:
        here, there = Blocks(run, words, dtype), Blocks(run, words, dtype, torch.device("cpu"))
        piece = x[run.start : run.stop]
        forward, other = here.forward(here.load(piece.numpy())), there.forward(there.load(piece))
        assert same_bits(torch.from_numpy(forward), other)
        assert same_bits(torch.from_numpy(here.backward(forward)), there.backward(other))


@pytest.mark.cuda
def test_a_gpu_rotates_to_the_same_bits():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for dtype in DTYPES:
        x, runs = torch.from_numpy(gauss(300_001)).to(dtype), cut([(0, 300_001)])
        z = rotate(x, runs, KEY)
        assert same_bits(rotate(x.cuda(), runs, KEY).cpu(), z)
        assert same_bits(rotate_back(z.cuda(), runs, KEY, 300_001).cpu(), rotate_back(z, runs, KEY, 300_001))


def test_threads_and_other_spans_do_not_change_the_bits_of_a_span():
    x, before = torch.from_numpy(gauss(1_200_000)).float(), torch.get_num_threads()
    runs, found = cut([(0, len(x))]), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(rotate(x, runs, KEY))
    finally:
        torch.set_num_threads(before)
    assert same_bits(*found)
    assert same_bits(rotate(x, cut([(0, ROWS * COLUMNS), (ROWS * COLUMNS, len(x))]), KEY), found[0])


def test_another_client_rotates_otherwise():
    x, runs = torch.from_numpy(gauss(4_096)), cut([(0, 4_096)])
    a, b = (rotate(x, runs, KEY.at(client=client)) for client in (0, 1))
    assert abs(float(a @ b)) < 0.1 * float(a @ a)


def test_a_spike_is_spread_to_many_magnitudes_that_look_gaussian():
    x = torch.zeros(ROWS, dtype=torch.float64)
    x[17] = 1
    z = rotate(x, cut([(0, ROWS)]), KEY) * ROWS**0.5
    assert len(np.unique(np.round(z.abs().numpy(), 9))) > 0.99 * ROWS  # two plain rounds: multiples of 1/32 only
    assert float((z**4).mean()) == pytest.approx(3, abs=0.4)
