"""Values in 8, 4 and 2 bits, and Top-k within chunks: what is special about them."""

import struct

import numpy as np
import pytest
import torch
from compressors_kit import KEY, MANY, gauss, over_the_wire, same_bits

from compressors.levels import BLOCK, alpha_of_levels, omega_of_levels
from compressors.select import largest_in_rows, largest_in_rows_on
from compressors.top_k import TopK
from compressors.values import BITS, PARAMETERS, decode_values, encode_values, least_value_bits
from thinwire.errors import WireError
from thinwire.layout import Layout

every_width = pytest.mark.parametrize("form", BITS)


def heavy(count):
    """Student-t(3) times a log-normal scale per 4,096 entries (float64)."""
    normals = gauss(4 * count, 21).reshape(4, count)
    scale = np.exp(gauss(count // 4_096 + 1, 22)).repeat(4_096)[:count]
    return normals[0] / np.sqrt((normals[1:] ** 2).sum(0) / 3) * scale


def top(x, count):
    return x[np.sort(np.argsort(-np.abs(x))[:count])]


def error(x, found):
    """Relative squared error."""
    return float(((found.astype(np.float64) - x) ** 2).sum() / (x.astype(np.float64) ** 2).sum())


def worst_block(bits, at_random):
    """One entry at the height, which is rounded up by a hair less than UP, and all others in the worst step."""
    most, n, found = (1 << (bits - 1)) - 1, BLOCK - 1, []
    for j in range(most):
        low, high = (j / most) ** 2, ((j + 1) / most) ** 2
        inner = 1 + n * low * high
        omega = (np.sqrt(inner**2 + n * (high - low) ** 2) - inner) / 2
        if at_random:
            found.append((omega, (low + high) / (2 * (1 + omega))))
        else:
            found.append(((high - low) ** 2 / (4 + n * (low + high) ** 2), 0.9999 * (low + high) / 2))
    return np.concatenate([np.full(BLOCK - 2, 257 / 256 * max(found)[1]), [0.0, 1.00001]])


@every_width
def test_the_worst_block_of_few_bits_errs_as_stated(form):
    bits = BITS[form]
    x = np.tile(worst_block(bits, True), 400)
    at_random = error(x, encode_values(x, form, KEY)[2])
    assert 0.9 * omega_of_levels(bits) < at_random < 1.02 * omega_of_levels(bits)
    if bits > 2:
        x = worst_block(bits, False)
        nearest = error(x, encode_values(x, form, None)[2])
        assert 0.95 * (1 - alpha_of_levels(bits)) < nearest <= 1 - alpha_of_levels(bits)


def test_two_bits_to_the_nearest_hold_their_bound_where_sums_grow_as_a_root():
    root = np.sqrt(np.arange(BLOCK + 1))
    for x in (np.diff(root), gauss(BLOCK) ** 5, np.eye(1, BLOCK, 3)[0], 2.0 ** -np.arange(BLOCK)):
        assert error(x, encode_values(x, "2-bit", None)[2]) <= 1 - alpha_of_levels(2)


@every_width
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_bits_are_unbiased_at_random(form, dtype):
    draws, runs = 1_500, [100, 0, 200]
    x = gauss(300, 30).astype(dtype)
    found = encode_values(np.tile(x, draws), form, KEY, runs * draws)[2].reshape(draws, -1).astype(np.float64)
    rare = np.where(found.var(0) == 0, np.abs(x) * np.abs(found).max(), 0)  # what never rose would have risen so far
    z = (found.mean(0) - x) / np.sqrt((found.var(0) + rare + 1e-12) / draws)
    assert np.abs(z).max() < 4.5
    assert abs((np.sign(x) * z).sum()) < 4.5 * len(x) ** 0.5


MEASURED = {"8-bit": (3e-6, 5e-5), "4-bit": (6e-4, 1.4e-2), "2-bit": (4e-3, 0.13)}


@every_width
def test_the_largest_entries_lose_little_in_few_bits_whatever_their_tails(form):
    for x, most in zip((gauss(400_000), heavy(400_000)), MEASURED[form], strict=True):
        assert error(top(x, 4_000), encode_values(top(x, 4_000), form, None)[2]) < most


@pytest.mark.parametrize(("form", "most"), [("8-bit", 1e-3), ("4-bit", 2.2e-2)])
def test_dense_heavy_tails_survive_few_bits(form, most):
    x = heavy(200_000)
    assert error(x, encode_values(x, form, None)[2]) < most


@every_width
def test_few_bits_cost_their_entropy_and_a_tenth_of_a_bit_for_scales(form):
    x = gauss(120_000, 31).astype(np.float32)
    parameters, stream, _ = encode_values(x, form, None)
    assert len(stream) * 8 <= 1.02 * least_value_bits(parameters, stream, len(x), "float32")
    assert len(stream) * 8 <= (BITS[form] + 0.11) * len(x)


@every_width
def test_a_small_tensor_keeps_its_own_scale_in_few_bits(form):
    loud, quiet = 1e6 * gauss(300, 32), 1e-6 * gauss(40, 33)
    together = encode_values(np.concatenate([loud, quiet]), form, None, [300, 40])[2]
    alone = encode_values(quiet, form, None)[2]
    assert error(quiet, together[300:]) < 0.2
    assert np.allclose(together[300:], alone, rtol=1e-12)


def test_values_in_few_bits_are_read_strictly():
    x = gauss(300, 34).astype(np.float32)
    x[5] = 0
    parameters, stream, _ = encode_values(x, "4-bit", None)
    (described,) = struct.unpack_from("<I", stream)
    zeros = b"\x01\x01\x01\x08\x00\x00"  # heights and floors of 3 blocks, all alike, the floors zero
    for bad in (
        b"",
        stream[:3],
        stream + b"\x00",
        struct.pack("<I", described + 1) + stream[4:],
        struct.pack("<I", 2**32 - 1) + stream[4:],
        struct.pack("<I", 6) + zeros + b"\x01\x10",  # a symbol of five bits
        struct.pack("<I", 6) + zeros + b"\x01\x08",  # minus zero
    ):
        with pytest.raises(WireError):
            decode_values(parameters, bad, 300, "float32")
    with pytest.raises(WireError, match="exponent"):
        decode_values(PARAMETERS.pack(parameters[0], 200), stream, 300, "float32")
    assert decode_values(parameters, struct.pack("<I", 6) + zeros + b"\x01\x0f", 300, "float32").max() < 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selection_in_rows_is_exact_and_ties_go_to_the_lowest_index(dtype):
    smooth = gauss(24_000).astype(dtype)
    for x in (smooth, np.round(smooth * 2), np.zeros_like(smooth), np.ones_like(smooth)):
        for width, keep in ((100, 1), (100, 7), (4_000, 40), (100, 100), (16, 15)):
            order = np.argsort(-np.abs(x.reshape(-1, width)), axis=1, kind="stable")[:, :keep]
            expected = (np.sort(order, axis=1) + np.arange(0, len(x), width)[:, None]).reshape(-1)
            assert np.array_equal(largest_in_rows(x, width, keep), expected)
            assert np.array_equal(largest_in_rows_on(torch.from_numpy(x), width, keep).numpy(), expected)


def test_top_k_in_chunks_keeps_the_share_of_every_chunk_and_small_tensors_whole():
    x = torch.from_numpy(gauss(MANY.numel)).float()
    compressor = TopK(0.05, "2-bit", "chunk", 100)
    encoded = compressor.encode(x, MANY, KEY)
    assert same_bits(over_the_wire(encoded, MANY, compressor), encoded.decoded)
    for entry, piece in MANY.pieces(encoded.decoded):
        for start in range(0, entry.numel, 100):
            chunk = piece[start : start + 100]
            assert int((chunk != 0).sum()) == (len(chunk) if entry.numel < 256 else max(1, round(0.05 * len(chunk))))


@pytest.mark.parametrize("scope", ["tensor", "global", "chunk"])
def test_the_worst_vector_of_top_k_is_where_the_least_share_is_kept(scope):
    compressor = TopK(0.0094, "fp32", scope, 150)
    x = compressor.worst(MANY)
    found = compressor.encode(x, MANY, KEY).decoded
    assert error(x.numpy(), found.numpy()) == pytest.approx(1 - compressor.alpha(MANY))


def test_top_k_in_chunks_at_one_per_cent_and_two_bits_takes_a_tenth_of_a_bit_an_entry():
    layout, x = Layout.flat(500_000), torch.from_numpy(gauss(500_000)).float()
    compressor = TopK(0.01, "2-bit", "chunk")
    encoded = compressor.encode(x, layout, KEY)
    assert encoded.payload.size * 8 <= 0.102 * layout.numel
    assert encoded.payload.size * 8 <= 1.03 * compressor.least_bits(encoded, layout)
    kept = encoded.decoded != 0
    assert error(x[kept].numpy(), encoded.decoded[kept].numpy()) < 5e-3


def test_a_chunk_too_small_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="allowed: at least 16"):
        TopK(scope="chunk", chunk=15)
