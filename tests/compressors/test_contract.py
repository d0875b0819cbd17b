"""The conformance kit: every file in ``compressors/`` joins it by itself."""

import dataclasses
import importlib
import pkgutil
import sys
import textwrap

import numpy as np
import pytest
import torch
from compressors_kit import (
    DTYPES,
    KEY,
    MANY,
    edges,
    gauss,
    instances,
    label,
    over_the_wire,
    same_bits,
    vectors,
)

import compressors
from compressors import NonFinite, decode, registry
from compressors.registry import Expectation
from compressors.scope import least_share
from thinwire.errors import ConfigError, WireError
from thinwire.layout import Entry, Layout

every_instance = pytest.mark.parametrize("compressor", instances(), ids=label)
DRAWS = 400
LENGTH = 512
SQUARE = Layout((Entry("matrix", (16, 32)),))  # of that length; low rank needs two sides


@every_instance
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_receiver_decodes_the_very_bits_that_the_sender_kept(compressor, dtype):
    for layout in (MANY, Layout.flat(5_000), Layout.flat(1), Layout.flat(2), Layout.flat(255), Layout.flat(257)):
        x = torch.from_numpy(gauss(layout.numel)).to(dtype)
        before = x.clone()
        encoded = compressor.encode(x, layout, KEY)
        assert same_bits(over_the_wire(encoded, layout, compressor), encoded.decoded)
        assert same_bits(x, before), "encode changed its input"
        assert encoded.payload.codec in compressor.codecs


@every_instance
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vectors_at_the_ends_of_the_range_survive(compressor, dtype):
    for name, x in edges(MANY, dtype).items():
        encoded = compressor.encode(x, MANY, KEY)
        assert same_bits(over_the_wire(encoded, MANY, compressor), encoded.decoded), name
        assert bool(torch.isfinite(encoded.decoded).all()), name
        if not bool(x.any()):
            assert not bool(encoded.decoded.any()), name


@every_instance
def test_an_empty_vector_is_carried(compressor):
    layout = Layout.flat(0)
    encoded = compressor.encode(torch.zeros(0), layout, KEY)
    assert over_the_wire(encoded, layout, compressor).shape == (0,)


@every_instance
def test_views_and_gradients_are_accepted(compressor):
    x = torch.from_numpy(gauss(4_000)).float()
    strided, tracked = x[::2], x[::2].clone().requires_grad_()
    expected = compressor.encode(x[::2].clone(), Layout.flat(2_000), KEY)
    for vector in (strided, tracked):
        encoded = compressor.encode(vector, Layout.flat(2_000), KEY)
        assert encoded.payload == expected.payload
        assert not encoded.decoded.requires_grad


@every_instance
def test_the_same_key_gives_the_same_bytes_on_any_number_of_threads(compressor):
    layout = Layout.flat(3_000_000 if compressor == type(compressor).examples()[0] else 10_000)
    x = torch.from_numpy(gauss(layout.numel)).float()
    before = torch.get_num_threads()
    try:
        payloads = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            payloads.append(compressor.encode(x, layout, KEY).payload)
    finally:
        torch.set_num_threads(before)
    assert payloads[0] == payloads[1] or not compressor.reproducible


@every_instance
def test_another_key_gives_other_noise_if_the_compressor_is_unbiased(compressor):
    x = torch.from_numpy(gauss(2_000)).float()
    first, *others = (compressor.encode(x, Layout.flat(2_000), KEY.at(round=r)).decoded for r in range(12))
    same = all(same_bits(first, other) for other in others)
    if compressor.name in ("identity", "top-k", "block-top-k"):
        assert same
    if compressor.omega(Layout.flat(2_000)) not in (None, 0.0):
        assert not same


def draws(compressor, x, layout, count):
    """Decoded vectors of independent keys, one per row (float64)."""
    return torch.stack([compressor.encode(x, layout, KEY.at(round=i)).decoded.double() for i in range(count)])


def spread_of_means(found, x):
    """Standard deviation of the mean of each entry over the draws, allowing for outcomes too rare to have shown yet.

    Outcomes seen are counted thrice more. What is missing may also be an outcome as large as any entry's, as long as
    its probability is so small (3.4 per cent) that 400 draws miss it once in a million times: variance gap * outcome.
    """
    gap, most = (found.mean(0) - x).abs(), found.abs().max()
    seen = found.var(0) + (3 * (found - found.mean(0)).abs().amax(0) ** 2 + x**2) / DRAWS
    rare = torch.where(gap <= 0.034 * most, gap * most, 0.0)
    return torch.clamp((torch.maximum(seen, rare) / DRAWS).sqrt(), min=1e-7 * x.abs().max())


@every_instance
@pytest.mark.parametrize("shape", ["gauss", "heavy tail", "flat", "spike", "4/3 flat"])
def test_omega_and_alpha_are_what_is_measured(compressor, shape):
    layout, x = SQUARE, vectors(LENGTH)[shape].float()
    omega, alpha = compressor.omega(layout), compressor.alpha(layout)
    assert omega is not None or alpha is not None, "neither unbiased nor contractive"
    found = draws(compressor, x, layout, DRAWS)
    error, scale = ((found - x.double()) ** 2).sum(1), float((x.double() ** 2).sum())
    mean, spread = float(error.mean()) / scale, float(error.std()) / scale / DRAWS**0.5
    if omega is not None:
        assert mean <= omega * (1 + 1e-6) + 4 * spread + 1e-12
        gap, deviation = found.mean(0) - x.double(), spread_of_means(found, x.double())
        assert float((gap.abs() / deviation).max()) < 6, "biased"
        for what, signs in (("in sum", torch.ones(LENGTH)), ("away from zero, or towards it", torch.sign(x))):
            sums = found @ signs.double()  # entries may err together
            whole = torch.clamp((sums.var() / DRAWS).maximum((deviation**2).sum()).sqrt(), min=1e-6 * scale**0.5)
            assert abs(float((gap * signs).sum() / whole)) < 5, f"biased {what}"
    if alpha is not None:
        assert 0 < alpha <= 1
        assert mean <= 1 - alpha + 4 * spread + 1e-6


@every_instance
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bound_holds_with_many_tensors_and_for_denormals(compressor, dtype):
    lift = 2.0 ** (100 if dtype == torch.float32 else 900)  # out of the denormal range, where squares vanish
    for vector, factor in (
        (edges(MANY, dtype)["denormal"], lift),
        (torch.from_numpy(gauss(MANY.numel)).to(dtype), 1.0),
    ):
        exact = vector.double() * factor
        found = draws(compressor, vector, MANY, 60) * factor
        errors = (((found - exact) ** 2).sum(1) / (exact**2).sum()).numpy()
        omega, alpha = compressor.omega(MANY), compressor.alpha(MANY)
        mean, spread = np.mean(errors), np.std(errors) / 60**0.5
        assert mean <= (omega if omega is not None else 1 - alpha) * (1 + 1e-6) + 5 * spread + 1e-6


@every_instance
@pytest.mark.parametrize("shape", [(4_096,), (64, 64), (60_000,), (200, 300)], ids=str)
def test_bytes_stay_within_five_per_cent_of_the_least(compressor, shape):
    layout = Layout((Entry("x", shape),))
    encoded = compressor.encode(torch.from_numpy(gauss(layout.numel)).float(), layout, KEY)
    least = compressor.least_bits(encoded, layout)
    if least is not None:
        assert 0.5 * least <= encoded.payload.size * 8 <= 1.05 * least + 128 * 8, least
    assert encoded.payload.size <= Expectation(layout, torch.float32, compressor.codecs).most_bytes


def test_every_compressor_of_ours_states_its_least_bits():
    for compressor in instances():
        layout = Layout.flat(1_000)
        encoded = compressor.encode(torch.from_numpy(gauss(1_000)).float(), layout, KEY)
        assert compressor.least_bits(encoded, layout) is not None, compressor


@every_instance
def test_a_constant_that_is_called_exact_is_attained(compressor):
    layout = SQUARE
    x = compressor.worst(layout)
    if x is None:
        return
    found = draws(compressor, x, layout, DRAWS)
    errors = ((found - x) ** 2).sum(1) / (x**2).sum()
    omega, alpha = compressor.omega(layout), compressor.alpha(layout)
    constant = omega if omega is not None else 1 - alpha
    assert float(errors.mean()) >= 0.95 * constant - 4 * float(errors.std()) / DRAWS**0.5


@every_instance
def test_small_vectors_cost_no_table(compressor):
    for d in (1, 10, 100):
        payload = compressor.encode(torch.from_numpy(gauss(d)).float(), Layout.flat(d), KEY).payload
        assert payload.size <= 4 * d + 32 * (1 + payload.codec.count(","))  # for each compressor that takes part


@every_instance
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_entry_is_refused_by_name(compressor, bad):
    x = torch.zeros(MANY.numel)
    x[MANY.offsets[1] + 4] = bad
    with pytest.raises(NonFinite, match=r"a\.bias"):
        compressor.encode(x, MANY, KEY)


@every_instance
def test_the_largest_sum_that_overflows_is_no_non_finite_entry(compressor):
    x = torch.full((MANY.numel,), torch.finfo(torch.float32).max)
    assert bool(torch.isfinite(compressor.encode(x, MANY, KEY).decoded).all())


@every_instance
def test_another_codec_dtype_or_size_is_refused(compressor):
    layout = Layout.flat(1_000)
    payload = compressor.encode(torch.from_numpy(gauss(1_000)).float(), layout, KEY).payload
    for expectation in (
        Expectation(layout, torch.float32, frozenset({"some-other"})),
        Expectation(layout, torch.float64, compressor.codecs),
        Expectation(layout, torch.float32, compressor.codecs, limit_bytes=payload.size - 1),
        Expectation(Layout.flat(10), torch.float32, compressor.codecs),
    ):
        with pytest.raises(WireError):
            decode(payload, expectation, KEY)


@every_instance
def test_options_are_frozen_and_printable(compressor):
    assert eval(repr(compressor), {c.__name__: c for c in registry().values()}) == compressor
    for field in dataclasses.fields(compressor):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(compressor, field.name, getattr(compressor, field.name))


def test_a_new_file_joins_the_registry_and_this_kit(tmp_path, monkeypatch):
    (tmp_path / "halves.py").write_text(
        textwrap.dedent('''
        """Keep everything."""
        from compressors.identity import Identity
        from compressors.base import Compressor
        class Halves(Compressor):
            name = "halves"
            encode = Identity.encode
            decode = staticmethod(Identity.decode)
        ''')
    )
    found = pkgutil.iter_modules
    monkeypatch.setattr(compressors, "__path__", [*compressors.__path__, str(tmp_path)])
    monkeypatch.setattr(pkgutil, "iter_modules", lambda paths: found([*paths, str(tmp_path)]))
    registry.cache_clear()
    try:
        assert registry()["halves"] is importlib.import_module("compressors.halves").Halves
        assert "halves" in {compressor.name for compressor in instances()}
    finally:
        registry.cache_clear()
        sys.modules.pop("compressors.halves", None)
        vars(compressors).pop("halves", None)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="top-k"):
        compressors.find("topk")


def test_every_compressor_file_is_registered():
    modules = [module.name for module in pkgutil.iter_modules(compressors.__path__)]
    classes = {
        value
        for module in modules
        for value in vars(importlib.import_module(f"compressors.{module}")).values()
        if isinstance(value, type) and issubclass(value, compressors.Compressor) and value is not compressors.Compressor
    }
    assert classes == set(registry().values())


def test_the_worst_tensor_decides():
    assert least_share(MANY, 0.0094, "tensor") == pytest.approx(9 / 999)
    assert least_share(MANY, 0.01, "global") == pytest.approx(round(0.01 * MANY.numel) / MANY.numel)
