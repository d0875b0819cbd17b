"""Low rank: what is captured, how tensors become matrices, how ranks adapt, and what a receiver refuses."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import DTYPES, KEY, edges, gauss, over_the_wire, same_bits, with_stream

from compressors import Expectation, decode
from compressors.cx import CX, sample_columns
from compressors.directions import iterate
from compressors.factor_plan import Plan
from compressors.gram_schmidt import orthogonal_rows
from compressors.matrices import MOST_RANK, Block, matricise, read_matricisation
from compressors.one_sided_power import OneSidedPower
from compressors.outer import ENTRIES, outer_sum
from compressors.power import Power
from compressors.rsvd import RSVD
from compressors.scaled import Scaled
from compressors.subspace import Subspace
from compressors.svd import SVD
from thinwire.config import build
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Entry, Layout
from thinwire.state import dump, load, same
from thinwire.wire.coding import pack_symbols

ROWS, COLUMNS = 64, 48
LAYOUT = Layout((Entry("weight", (ROWS, COLUMNS)),))
EXPONENTIAL = np.exp(-np.arange(COLUMNS) / 4)  # 1 - e^-2 = .865 of the energy in the first four
FAMILY = (SVD, RSVD, Power, CX, Subspace, OneSidedPower)


def orthogonal(size, count, seed):
    return np.linalg.qr(gauss(size * count, seed).reshape(size, count))[0]


def of_spectrum(singular, rows=ROWS, columns=COLUMNS, seed=40):
    """A matrix of these singular values (float32)."""
    count = min(rows, columns)
    matrix = orthogonal(rows, count, seed) * singular @ orthogonal(columns, count, seed + 1).T
    return torch.from_numpy(matrix).float()


def captured(compressor, matrix, draws, layout=LAYOUT):
    """The mean of 1 - relative squared error over independent keys."""
    x = matrix.reshape(-1)
    found = [compressor.encode(x, layout, KEY.at(round=i)).decoded for i in range(draws)]
    return 1 - np.mean([error(x, decoded) for decoded in found])


def error(x, decoded):
    return float(((decoded.double() - x.double()) ** 2).sum() / (x.double() ** 2).sum())


@pytest.mark.parametrize(("compressor", "draws"), [(SVD(), 1), (RSVD(), 200), (Power(), 200), (CX(), 200)], ids=str)
def test_nine_tenths_of_the_promised_energy_are_captured_of_the_flattest_matrix(compressor, draws):
    assert captured(compressor, of_spectrum(np.ones(COLUMNS)), draws) >= 0.9 * 4 / COLUMNS


@pytest.mark.parametrize(
    ("compressor", "expected", "tolerance"),  # of the mean of 60 draws: four standard deviations of what was measured
    [
        (SVD(), 0.865, 0.001),
        (RSVD(powers=0), 0.830, 0.009),
        (RSVD(), 0.8645, 0.001),
        (Power(), 0.682, 0.035),
        (CX(), 0.720, 0.035),
        (Subspace(biased=True), 4 / 48, 0.016),
        (OneSidedPower(), (4 / 48 + 4 / 64) / 2, 0.014),
    ],
    ids=lambda value: repr(value).partition(",")[0],
)
def test_what_is_captured_of_an_exponential_spectrum(compressor, expected, tolerance):
    assert captured(compressor, of_spectrum(EXPONENTIAL), 60) == pytest.approx(expected, abs=tolerance)


def test_a_warm_start_reaches_the_best_approximation_in_six_messages():
    x, compressor, warm = of_spectrum(EXPONENTIAL).reshape(-1), Power(warm=True), None
    for i in range(6):
        encoded = compressor.encode(x, LAYOUT, KEY.at(round=i), warm=warm)
        warm = encoded.warm
    assert 1 - error(x, encoded.decoded) >= 0.98 * 0.865


def jump():
    """Two matrices whose rows and columns have nothing in common."""
    half = of_spectrum(np.exp(-np.arange(24) / 4), 32, 24)
    before, after = torch.zeros(ROWS, COLUMNS), torch.zeros(ROWS, COLUMNS)
    before[:32, :24], after[32:, 24:] = half, half.flip(1)
    return before.reshape(-1), after.reshape(-1)


def test_the_fresh_column_finds_new_directions_that_a_pure_warm_start_never_sees():
    before, after = jump()
    matrix, pure = after.view(ROWS, COLUMNS), iterate(before.view(ROWS, COLUMNS), torch.eye(ROWS, 4))
    for _ in range(4):
        pure = iterate(matrix, pure.images.float())
        assert float(pure.energies.sum()) < 0.1 * float(matrix.square().sum())
    for seed in range(3):
        compressor, warm, shares = Power(warm=True), None, []
        for i in range(8):
            x = before if i < 4 else after
            encoded = compressor.encode(x, LAYOUT, KEY.at(f"jump {seed}", round=i), warm=warm)
            warm = encoded.warm
            shares.append(1 - error(x, encoded.decoded))
        assert max(shares[4:]) >= 0.6


def test_a_warm_start_that_captures_too_little_is_drawn_anew():
    matrix, stale = torch.zeros(ROWS, COLUMNS), torch.eye(ROWS, 4)
    matrix[4:, 8:] = of_spectrum(np.ones(40), 60, 40)  # nothing for the stale directions; 1/40 for a fresh one
    assert 1 / 40 < 4 / (2 * COLUMNS) < 4 / 40
    decoded = Power(warm=True).encode(matrix.reshape(-1), LAYOUT, KEY, warm=(stale,)).decoded
    assert 1 - error(matrix.reshape(-1), decoded) == pytest.approx(4 / 40, rel=1e-3)


def test_a_warm_start_survives_the_disk_and_a_foreign_one_is_a_cold_start():
    x, compressor = of_spectrum(EXPONENTIAL).reshape(-1), Power(warm=True)
    cold = compressor.encode(x, LAYOUT, KEY)
    assert isinstance(cold.warm, tuple)
    assert same(load(dump(cold.warm)), cold.warm)
    warm = compressor.encode(x, LAYOUT, KEY.at(round=9), warm=cold.warm)
    assert same_bits(compressor.encode(x, LAYOUT, KEY.at(round=9), warm=load(dump(cold.warm))).decoded, warm.decoded)
    for foreign in ((), cold.warm * 2, (torch.zeros(7, 4),), (torch.zeros(ROWS),), "state", (None,)):
        assert same_bits(compressor.encode(x, LAYOUT, KEY, warm=foreign).decoded, cold.decoded)
    assert Power().encode(x, LAYOUT, KEY, warm=cold.warm).warm is None


def test_a_random_subspace_is_unbiased_with_its_omega():
    compressor = Subspace(values="fp32")
    assert compressor.omega(LAYOUT) == 48 / 4 - 1
    x = of_spectrum(EXPONENTIAL).reshape(-1)
    found = torch.stack([compressor.encode(x, LAYOUT, KEY.at(round=i)).decoded.double() for i in range(400)])
    errors = ((found - x.double()) ** 2).sum(1) / (x.double() ** 2).sum()
    assert abs(float(errors.mean()) - 11) < 4 * float(errors.std()) / 20
    z = (found.mean(0) - x) / (found.std(0) / 20)
    assert float(z.abs().max()) < 5.5  # of 3,072


@pytest.mark.parametrize(("count", "length"), [(1, 3), (2, 5), (4, 48), (40, 100), (8, 1_000)])
def test_a_subspace_from_a_key_is_orthogonal(count, length):
    rows = orthogonal_rows(KEY, count, length)
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    assert np.abs(unit @ unit.T - np.eye(count)).max() < 1e-14
    assert not np.array_equal(rows, orthogonal_rows(KEY.at(round=4), count, length))


@pytest.mark.parametrize("compressor", [Subspace(2, "fp32", shared=True), OneSidedPower(2, "fp32")], ids=repr)
def test_messages_of_linear_compressors_may_be_added(compressor):
    assert compressor.linear
    assert not replace(compressor, values="bf16").linear
    assert not compressor.independent
    a, b = (torch.from_numpy(gauss(LAYOUT.numel, seed)).float() for seed in (50, 51))
    one, other = (compressor.encode(x, LAYOUT, KEY.at(client=i)).decoded for i, x in enumerate((a, b)))
    assert torch.allclose(one + other, compressor.encode(a + b, LAYOUT, KEY).decoded, atol=1e-5)


def test_clients_have_subspaces_of_their_own_unless_they_share_one():
    x = torch.from_numpy(gauss(LAYOUT.numel)).float()
    for shared in (False, True):
        found = [Subspace(values="fp32", shared=shared).encode(x, LAYOUT, KEY.at(client=i)).decoded for i in (0, 1)]
        assert same_bits(*found) == shared


def test_one_sided_power_alternates_its_side():
    matrix = of_spectrum(EXPONENTIAL)
    for turn, side, count in ((2, COLUMNS, ROWS), (3, ROWS, COLUMNS)):
        encoded = OneSidedPower(values="fp32").encode(matrix.reshape(-1), LAYOUT, KEY.at(round=turn))
        assert len(encoded.payload.streams[3]) <= 4 * 4 * count + 8
        draws = [OneSidedPower().encode(matrix.reshape(-1), LAYOUT, KEY.at(round=turn + 2 * i)) for i in range(150)]
        mean = 1 - np.mean([error(matrix.reshape(-1), draw.decoded) for draw in draws])
        assert mean == pytest.approx(4 / side, abs=0.008)  # four standard deviations


def test_a_subspace_is_scaled_for_error_feedback():
    x, compressor = torch.from_numpy(gauss(LAYOUT.numel)).float(), Scaled(Subspace())
    encoded = compressor.encode(x, LAYOUT, KEY)
    assert same_bits(over_the_wire(encoded, LAYOUT, compressor), encoded.decoded)
    assert compressor.alpha(LAYOUT) == pytest.approx(4 / 48, rel=1e-4)
    assert compressor.least_bits(encoded, LAYOUT) == Subspace().least_bits(Subspace().encode(x, LAYOUT, KEY), LAYOUT)


def test_columns_of_the_matrix_travel_with_what_fits_them_best():
    matrix, key = of_spectrum(EXPONENTIAL), KEY.at("columns", tensor=0)
    chosen = sample_columns(matrix, 4, key)
    assert len(set(chosen)) == 4
    columns = matrix[:, chosen].double()
    best = columns @ torch.linalg.lstsq(columns, matrix.double()).solution
    found = CX(values="fp32").encode(matrix.reshape(-1), LAYOUT, KEY).decoded
    assert torch.allclose(found.view_as(best), best.float(), atol=1e-5)
    assert len(sample_columns(torch.ones(ROWS, COLUMNS), 4, key)) == 1


def test_rounding_dependent_columns_costs_no_more_than_rounding_a_basis():
    """Raw columns in bfloat16 would lose 1.3 times the bound."""
    matrix = 1 + 2 * of_spectrum(np.exp(-np.arange(COLUMNS)))
    kept, best = (captured(CX(values=values), matrix, 40) for values in ("bf16", "fp32"))  # the same columns
    assert kept >= best - 2.0**-16


SHAPES = {
    "linear": ((64, 48), 1, [(64, 48)]),
    "convolution": ((32, 64, 3, 3), 1, [(32, 576)]),
    "convolution in one dimension": ((32, 64, 5), 1, [(32, 320)]),
    "depthwise convolution": ((64, 1, 3, 3), 0, []),
    "embedding": ((1_000, 32), 1, [(1_000, 32)]),
    "bias": ((4_096,), 0, []),
    "scalar": ((), 0, []),
    "nothing": ((0, 5), 0, []),
    "too small": ((15, 17), 0, []),
    "too narrow": ((4, 512), 0, []),  # 2 (4 + 512) numbers would replace 2,048: less than half is saved
    "self_attn.in_proj_weight": ((96, 32), 3, [(32, 32)] * 3),
    "blocks.0.attn.qkv.weight": ((192, 64), 3, [(64, 64)] * 3),
    "not.in_proj_weight": ((96, 48), 1, [(96, 48)]),
    "lstm.weight_ih_l0": ((128, 40), 4, [(32, 40)] * 4),
    "lstm.weight_hh_l0": ((128, 32), 4, [(32, 32)] * 4),
    "gru.weight_ih_l1_reverse": ((96, 40), 3, [(32, 40)] * 3),
    "gru.weight_hh_l1_reverse": ((96, 32), 3, [(32, 32)] * 3),
    "projected.weight_ih_l0": ((128, 40), 4, [(32, 40)] * 4),
    "projected.weight_hh_l0": ((128, 24), 4, [(32, 24)] * 4),
    "projected.weight_hr_l0": ((24, 32), 1, [(24, 32)]),
    "rnn.weight_ih_l0": ((96, 32), 1, [(96, 32)]),
    "rnn.weight_hh_l0": ((96, 96), 1, [(96, 96)]),
    "alone.weight_ih_l0": ((128, 40), 1, [(128, 40)]),
    "heads.weight": ((80, 40), 2, [(40, 40)] * 2),
}
MODEL = Layout(tuple(Entry(name, shape) for name, (shape, _, _) in SHAPES.items()))


def test_tensors_are_seen_as_the_matrices_that_they_are():
    seen = matricise(MODEL, 2, split=("heads.*:2",))
    assert list(seen.kinds) == [kind for _, kind, _ in SHAPES.values()]
    assert [(b.rows, b.columns) for b in seen.blocks] == [shape for *_, shapes in SHAPES.values() for shape in shapes]
    covered = [(b.start, b.start + b.numel) for b in seen.blocks] + list(seen.dense)
    assert sum(stop - start for start, stop in covered) == MODEL.numel
    assert sorted(covered)[0][0] == 0
    assert read_matricisation(MODEL, seen.kinds) == seen


def test_a_modules_own_names_are_understood():
    module = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(40, 32), "gru": torch.nn.GRU(40, 32), "attention": torch.nn.MultiheadAttention(32, 4)}
    )
    seen = matricise(Layout.of(module), 2)
    assert sorted((b.rows, b.columns) for b in seen.blocks) == [(32, 32)] * 11 + [(32, 40)] * 7


def test_the_gates_of_a_frozen_recurrence_are_still_recognised():
    layout = Layout((Entry("lstm.weight_ih_l0", (128, 40)),), (Entry("lstm.weight_hh_l0", (128, 32)),))
    assert list(matricise(layout, 2).kinds) == [4]


def test_a_wide_convolution_may_be_balanced():
    layout = Layout((Entry("wide", (16, 64, 3, 3)), Entry("square", (64, 16, 3, 3))))
    seen = matricise(layout, 2, balanced=True)
    assert [(b.rows, b.columns) for b in seen.blocks] == [(48, 192), (64, 144)]
    x = torch.from_numpy(gauss(layout.numel)).float()
    kernel = x[: 16 * 576].view(16, 64, 3, 3)
    assert torch.equal(seen.blocks[0].of(x)[3 * 5 + 1, 3 * 7 + 2], kernel[5, 7, 1, 2])
    back = torch.zeros_like(x)
    for block in seen.blocks:
        block.put(block.of(x), back)
    assert torch.equal(back, x)
    seen.blocks[0].put(torch.outer(x[:48], x[48:240]), x)
    encoded = SVD(1, "fp32", balanced=True).encode(x, layout, KEY)
    assert error(x[: 16 * 576], encoded.decoded[: 16 * 576]) < 1e-10
    assert error(x[: 16 * 576], SVD(1, "fp32").encode(x, layout, KEY).decoded[: 16 * 576]) > 0.3


def test_small_tensors_lose_nothing_but_their_rounding():
    x = torch.from_numpy(gauss(MODEL.numel)).float()
    for kind in FAMILY:
        options = {"biased": True} if kind is Subspace else {}
        decoded = kind(2, "fp32", **options).encode(x, MODEL, KEY).decoded
        for start, stop in matricise(MODEL, 2).dense:
            assert torch.equal(decoded[start:stop], x[start:stop])


def test_each_matrix_sends_just_enough_directions_for_the_energy_asked():
    layout = Layout((Entry("a", (ROWS, COLUMNS)), Entry("b", (ROWS, COLUMNS)), Entry("zero", (ROWS, COLUMNS))))
    steep, gentle = np.exp(-np.arange(COLUMNS) / 1.5), np.exp(-np.arange(COLUMNS) / 5)
    x = torch.cat([of_spectrum(steep), of_spectrum(gentle), torch.zeros(ROWS, COLUMNS)]).reshape(-1)
    cap = ROWS * COLUMNS // (4 * (ROWS + COLUMNS))
    for energy in (0.5, 0.8, 0.9):
        enough = [int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), energy)) + 1 for s in (steep, gentle)]
        for compressor in (SVD(energy=energy), RSVD(energy=energy, powers=3)):
            encoded = compressor.encode(x, layout, KEY)
            ranks = Plan.read(encoded.payload, layout).ranks
            assert ranks == (*(min(rank, cap) for rank in enough), 0)
            assert not encoded.decoded[2 * ROWS * COLUMNS :].any()
    assert cap == 6
    assert Plan.read(RSVD(energy=0.9, most_rank=3).encode(x, layout, KEY).payload, layout).ranks == (2, 3, 0)


def test_an_energy_is_promised_no_further_than_the_cap_allows():
    assert SVD(energy=0.1, values="fp32").alpha(LAYOUT) == 0.1
    assert SVD(energy=0.9, values="fp32").alpha(LAYOUT) == 6 / 48
    assert RSVD(energy=0.9, values="fp32").alpha(LAYOUT) == pytest.approx(0.9 * 6 / 48)
    flat = of_spectrum(np.ones(COLUMNS))
    assert captured(SVD(energy=0.9, values="fp32"), flat, 1) == pytest.approx(6 / 48, rel=1e-5)


LAYERS = Layout((Entry("a", (64, 48)), Entry("b", (32, 96)), Entry("c", (200, 40)), Entry("bias", (40,))))


def layers():
    """Three matrices of different size, scale and decay."""
    parts = [
        10 * of_spectrum(np.exp(-np.arange(48) / 2)),
        of_spectrum(np.exp(-np.arange(32) / 8), 32, 96),
        3 * of_spectrum(np.exp(-np.arange(40) / 5), 200, 40),
    ]
    return torch.cat([*(part.reshape(-1) for part in parts), torch.ones(40)])


@pytest.mark.parametrize("kind", [SVD, RSVD])
@pytest.mark.parametrize("values", ["bf16", "fp32", "8-bit"])
def test_a_message_stays_within_its_budget_and_uses_it(kind, values):
    x, shares = layers(), []
    for budget in (1_200, 2_000, 4_000):
        for options in ({"budget_bytes": budget}, {"budget_share": budget / (4 * LAYERS.numel)}):
            compressor = kind(values=values, **options)
            encoded = compressor.encode(x, LAYERS, KEY)
            assert 0.5 * budget < encoded.payload.size <= budget
            assert same_bits(over_the_wire(encoded, LAYERS, compressor), encoded.decoded)
        shares.append(1 - error(x, encoded.decoded))
        assert shares[-1] >= compressor.alpha(LAYERS)
    assert shares == sorted(shares)


def test_a_budget_goes_to_the_directions_of_most_energy_per_scalar():
    x, compressor = layers(), SVD(values="fp32", budget_bytes=4_000)
    encoded = compressor.encode(x, LAYERS, KEY)
    plan = Plan.read(encoded.payload, LAYERS)
    worth = []
    for block, rank in zip(plan.matricisation.blocks, plan.ranks, strict=True):
        density = torch.linalg.svdvals(block.of(x).double()) ** 2 / block.length
        worth.append((float(density[rank - 1]) if rank else np.inf, float(density[rank]), block.length))
    spent = sum(rank * block.length for block, rank in zip(plan.matricisation.blocks, plan.ranks, strict=True))
    room = 4_000 / 3.5
    assert all(sent > left or spent + length > 0.9 * room for sent, _, _ in worth for _, left, length in worth)
    assert len(set(plan.ranks)) > 1


def test_a_budget_too_small_for_anything_still_sends_the_best_direction():
    x = layers()
    encoded = SVD(budget_bytes=1).encode(x, LAYERS, KEY)
    assert sorted(Plan.read(encoded.payload, LAYERS).ranks) == [0, 0, 1]
    assert 0 < SVD(budget_bytes=1).alpha(LAYERS) <= 1 - error(x, encoded.decoded)


@pytest.mark.parametrize("values", ["bf16", "fp32", "8-bit"])
def test_rounding_costs_what_alpha_says(values):
    """The basis is rounded before the coefficients are fitted, so it costs its square only."""
    for rank, matrix in ((4, of_spectrum(np.ones(COLUMNS))), (4, of_spectrum(EXPONENTIAL)), (1, torch.ones(64, 48))):
        exact = captured(SVD(rank, "fp32"), matrix, 1)
        kept = captured(SVD(rank, values), matrix, 1) / exact
        promised = SVD(rank, values).alpha(LAYOUT) / SVD(rank, "fp32").alpha(LAYOUT)
        assert promised - 1e-6 <= kept <= 1 + 1e-6
        found, best = (captured(RSVD(rank, form), matrix, 15) for form in (values, "fp32"))  # the same sketches
        assert found >= (promised - 1e-6) * best
    assert SVD(4, "bf16").alpha(LAYOUT) > (1 - 2.0**-14) * 4 / 48
    assert SVD(4, "8-bit").alpha(LAYOUT) > (1 - 2.0**-9) * 4 / 48


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("compressor", [SVD(), SVD(values="8-bit"), Subspace(biased=True)], ids=repr)
def test_a_power_of_two_scales_the_result_and_nothing_else(compressor, dtype):
    x = of_spectrum(EXPONENTIAL).reshape(-1).to(dtype)
    expected = compressor.encode(x, LAYOUT, KEY).decoded
    for shift in (-90, -30, 30, 100) if dtype == torch.float32 else (-900, -30, 100, 1_000):
        lifted = torch.from_numpy(np.ldexp(x.numpy(), shift))
        found = compressor.encode(lifted, LAYOUT, KEY)
        back = torch.from_numpy(np.ldexp(found.decoded.numpy(), -shift))
        assert error(expected, back) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", FAMILY)
def test_matrices_at_the_ends_of_the_range_are_captured_like_others(kind, dtype):
    options = {"biased": True} if kind is Subspace else {}
    for name, x in edges(LAYOUT, dtype).items():
        decoded = kind(2, "fp32", **options).encode(x, LAYOUT, KEY).decoded
        assert bool(torch.isfinite(decoded).all()), name
        if bool(x.any()):
            top = np.frexp(float(x.abs().max()))[1]
            exact, found = (np.ldexp(v.double().numpy(), -top) for v in (x, decoded))
            assert ((found - exact) ** 2).sum() <= (1 + 1e-4) * (exact**2).sum(), name


def test_a_matrix_of_lower_rank_than_asked_sends_no_noise():
    x = torch.outer(torch.arange(1.0, 65), torch.arange(1.0, 49)).reshape(-1)
    for compressor in (SVD(values="fp32"), RSVD(values="fp32"), Power(values="fp32"), CX(values="fp32")):
        encoded = compressor.encode(x, LAYOUT, KEY)
        assert Plan.read(encoded.payload, LAYOUT).ranks == (1,), compressor
        assert error(x, encoded.decoded) < 1e-12


def test_the_sum_of_outer_products_is_the_same_in_blocks_and_at_once():
    rows, columns = 3 * ENTRIES // 1_000 + 7, 1_000
    for exponent in (0, 3, -64, 65, -120, 125):
        left = torch.from_numpy(gauss(rows * 3, 60).reshape(rows, 3)).float()
        right = torch.from_numpy(gauss(columns * 3, 61).reshape(columns, 3)).float()
        out = torch.empty(rows, columns)
        outer_sum(left, right, exponent, out)
        factor = np.float32(2.0**exponent) if abs(exponent) <= 64 else np.float32(1)
        expected, wide = np.zeros((rows, columns), np.float32), (left.numpy() * factor)[:, None, :] * right.numpy()
        expected = (wide[..., 0] + wide[..., 1]) + wide[..., 2]
        if abs(exponent) > 64:
            with np.errstate(over="ignore"):
                expected = np.ldexp(expected, exponent)
            expected = np.clip(expected, -np.finfo(np.float32).max, np.finfo(np.float32).max)
        assert np.array_equal(out.numpy(), expected)


def test_rank_four_of_a_thousand_squared_costs_a_third_of_powersgd():
    layout = Layout((Entry("weight", (1_000, 1_000)),))
    x = torch.from_numpy(gauss(1_000_000)).float()
    for values, most in (("bf16", 0.090), ("8-bit", 0.067)):  # PowerSGD: 4 x 2,000 floats, 0.256 bits a coordinate
        assert RSVD(values=values).encode(x, layout, KEY).payload.size * 8 / 1e6 < most


def hostile(payload, compressor, layout=LAYOUT):
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(payload, Expectation(layout, torch.float32, compressor.codecs), KEY)
        assert tracemalloc.get_traced_memory()[1] < 16 * layout.numel + 500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FAMILY)
def test_ranks_exponents_and_matrices_that_no_sender_writes_are_refused(kind):
    layout = Layout((Entry("weight", (600, 500)), Entry("kernel", (8, 8, 3, 3)), Entry("bias", (300,))))
    compressor = kind(2)
    payload = compressor.encode(torch.from_numpy(gauss(layout.numel)).float(), layout, KEY).payload
    plan = Plan.read(payload, layout)

    def table(ranks, exponents):
        columns = np.array([ranks, exponents], "<i2").view(np.uint8).reshape(2, -1, 2)
        return pack_symbols([np.ascontiguousarray(row) for row in columns.transpose(0, 2, 1).reshape(4, -1)])

    assert table(plan.ranks, plan.exponents) == payload.streams[1]
    for rank in (-1, 1, 3, MOST_RANK, MOST_RANK + 1, 273, 32_767):
        hostile(with_stream(payload, 1, table([rank, *plan.ranks[1:]], plan.exponents)), compressor, layout)
    for exponent in (251, -251, 32_767):
        hostile(with_stream(payload, 1, table(plan.ranks, [exponent, *plan.exponents[1:]])), compressor, layout)
    for kinds in ((7, 1, 0), (18, 1, 0), (255, 1, 0), (17, 1, 0), (1, 1, 1), (1, 17, 0), (0, 1, 0)):
        hostile(with_stream(payload, 0, pack_symbols([np.array(kinds, np.uint8)])), compressor, layout)
    hostile(replace(payload, parameters=payload.parameters + b"\0"), compressor, layout)
    hostile(replace(payload, parameters=b""), compressor, layout)
    hostile(replace(payload, streams=payload.streams[:-1]), compressor, layout)
    hostile(replace(payload, streams=(*payload.streams, b"")), compressor, layout)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"rank": rank}) for kind in FAMILY for rank in (0, 257)),
        *((kind, {"values": "2-bit"}) for kind in FAMILY),
        (CX, {"values": "8-bit"}),
        *((SVD, {"split": (text,)}) for text in ("qkv", "qkv:0", "qkv:17", "qkv:x", "qkv:-1")),
        *((kind, {"energy": energy}) for kind in (SVD, RSVD) for energy in (-0.1, 1.0, float("nan"))),
        *((kind, {"budget_bytes": -1}) for kind in (SVD, RSVD)),
        *((kind, {"budget_share": share}) for kind in (SVD, RSVD) for share in (-0.1, 1.1, float("nan"))),
        *((kind, {"energy": 0.5, "budget_bytes": 100}) for kind in (SVD, RSVD)),
        (RSVD, {"most_rank": 0}),
        (RSVD, {"oversampling": -1}),
        (RSVD, {"powers": 17}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_with_what_is_allowed(kind, options):
    with pytest.raises(ValueError, match="allowed"):
        kind(**options)
    with pytest.raises(ConfigError):
        build(kind, options, "uplink")


def test_a_split_that_does_not_fit_its_tensor_is_an_operators_error():
    x = torch.from_numpy(gauss(LAYOUT.numel)).float()
    with pytest.raises(ConfigError, match=r"weight:7.*\(64, 48\)"):
        SVD(split=("weight:7",)).encode(x, LAYOUT, KEY)
    assert build(SVD, {"split": ["weight:2", "*:1"]}, "uplink").split == ("weight:2", "*:1")
    assert matricise(LAYOUT, 4, split=("weight:2",)).blocks == (Block(0, 32, 48), Block(1_536, 32, 48))
