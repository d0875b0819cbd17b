"""Compressors around others: how their payloads are joined, and what each promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compressors_kit import KEY, gauss, over_the_wire, same_bits

from compressors import Expectation, Payload, decode
from compressors.bernoulli import Bernoulli
from compressors.block_top_k import BlockTopK
from compressors.composed import Composed
from compressors.eden import Eden
from compressors.identity import Identity
from compressors.induced import Induced
from compressors.mixed import Mixed
from compressors.natural import Natural
from compressors.nested import nest, unnest
from compressors.perm_k import PermK
from compressors.power import Power
from compressors.rand_k import RandK
from compressors.scaled import Scaled
from compressors.top_k import TopK
from thinwire.errors import WireError
from thinwire.layout import Entry, Layout
from thinwire.wire.coding import pack_symbols

INNER = (
    Payload("top-k", "float32", b"abc", (b"1", b"22")),
    Payload("identity", "float32", b"", (b"333",)),
    Payload("natural", "float32", b"de", (b"4444",)),
)


def test_payloads_come_out_of_a_nest_as_they_went_in():
    for count in (1, 2, 3):
        whole = nest("outer", INNER[:count], b"own", (b"mine",))
        assert whole.codec == f"outer({','.join(payload.codec for payload in INNER[:count])})"
        assert whole.size == 7 + sum(payload.size for payload in INNER[:count]) + 3 * (count - 1)
        assert unnest(whole, count, 3, 1) == INNER[:count]


def test_nests_are_read_strictly():
    whole = nest("outer", INNER, b"own", (b"mine",))
    for count in (1, 2, 4):
        with pytest.raises(WireError, match="with 3 inside"):
            unnest(whole, count, 3, 1)
    for size in range(3 + 3 + 3 + 3):
        with pytest.raises(WireError):
            unnest(replace(whole, parameters=whole.parameters[:size]), 3, 3, 1)
    for number in range(4):
        with pytest.raises(WireError):
            unnest(replace(whole, streams=whole.streams[:number]), 3, 3, 1)
    with pytest.raises(WireError, match="with 0 inside"):
        unnest(replace(whole, codec="outer"), None)


MODEL = Layout(
    (
        Entry("embedding.weight", (50, 20)),
        Entry("body.weight", (40, 30)),
        Entry("body.bias", (40,)),
        Entry("scale", (600,)),
        Entry("head.weight", (30, 20)),
    )
)


def errors(compressor, x, layout, draws):
    """Relative squared errors of independent draws, and their decoded mean."""
    found = torch.stack([compressor.encode(x, layout, KEY.at(round=i)).decoded.double() for i in range(draws)])
    return ((found - x.double()) ** 2).sum(1) / (x.double() ** 2).sum(), found.mean(0)


def test_induced_top_64_and_rand_64_of_1024_have_the_omega_of_the_paper():
    layout, x = Layout.flat(1_024), torch.ones(1_024)
    compressor = Induced(TopK(1 / 16, "fp32"), RandK(1 / 16, "fp32"))
    assert compressor.omega(layout) == pytest.approx(14.0625)
    found, mean = errors(compressor, x, layout, 400)
    assert float(found.mean()) == pytest.approx(14.0625, rel=0.03)  # on a flat vector it is attained
    assert float((mean - 1).norm() / 32) == pytest.approx((14.06 / 400) ** 0.5, rel=0.1), "as of an unbiased one"
    spiky = torch.from_numpy(gauss(1_024) ** 5).float()
    assert float(errors(compressor, spiky, layout, 50)[0].mean()) < 1  # Top-k has nearly all of it


@pytest.mark.parametrize(
    ("compressor", "omega"),
    [
        (Composed(RandK(1 / 4, "fp32"), RandK(1 / 2, "fp32")), 7.0),
        (Composed(Natural(), RandK(1 / 4, "fp32")), 4 * 9 / 8 - 1),
        (Composed(RandK(1 / 4, "fp32"), Natural()), 4 * 9 / 8 - 1),
    ],
    ids=str,
)
def test_one_plus_omega_of_a_composition_is_the_product(compressor, omega):
    layout, x = Layout.flat(2_048), torch.full((2_048,), 4 / 3)  # the worst of natural, and of Rand-k as any
    assert compressor.omega(layout) == pytest.approx(omega)
    found, mean = errors(compressor, x, layout, 300)
    assert float(found.mean()) == pytest.approx(omega, rel=0.04)
    assert float((mean - x).norm() / x.norm()) == pytest.approx((omega / 300) ** 0.5, rel=0.1)


def test_the_second_of_two_sees_only_what_the_first_keeps_and_costs_as_much():
    layout, x = Layout.flat(100_000), torch.from_numpy(gauss(100_000)).float()
    kept = 10_000
    sparse = Composed(RandK(0.1, "fp32"), Eden(4)).encode(x, layout, KEY)
    alone = Eden(4).encode(x[:kept], Layout.flat(kept), KEY).payload.size
    assert int((sparse.decoded != 0).sum()) == kept
    assert sparse.payload.size < 1.02 * alone + 64, "no index and nothing for the dropped"
    top = Composed(TopK(0.1), Eden(4, biased=True)).encode(x, layout, KEY)
    places = len(TopK(0.1).encode(x, layout, KEY).payload.streams[0])
    assert top.payload.size < 1.02 * (alone + places) + 64


@pytest.mark.parametrize(
    "first",
    [Bernoulli(0.2), PermK(4), RandK(0.2, "8-bit"), BlockTopK(8), TopK(0.2, scope="chunk"), RandK(0.2, biased=True)],
    ids=str,
)
def test_every_compressor_that_keeps_entries_may_come_first(first):
    x, biased = torch.from_numpy(gauss(MODEL.numel)).float(), first.omega(MODEL) is None
    compressor = Composed(first, Eden(8, biased=biased))
    encoded, plain = compressor.encode(x, MODEL, KEY), first.encode(x, MODEL, KEY.at("first")).decoded
    kept = plain != 0
    assert torch.equal(encoded.decoded != 0, kept)
    exact = x[kept] if biased else plain[kept]
    assert float(((encoded.decoded[kept] - exact) ** 2).sum() / (exact**2).sum()) < 1e-4
    assert same_bits(over_the_wire(encoded, MODEL, compressor), encoded.decoded)
    least = compressor.least_bits(encoded, MODEL)
    assert least is None or least <= 8 * encoded.payload.size


def test_a_mask_that_all_clients_share_stays_shared_within_a_composition():
    compressor, x = Composed(RandK(0.1, "fp32", shared=True), Eden(4)), torch.from_numpy(gauss(MODEL.numel)).float()
    support = compressor.support(MODEL, KEY)
    assert not compressor.independent
    for client in (0, 1):
        decoded = compressor.encode(x, MODEL, KEY.at(client=client)).decoded
        assert set(decoded.nonzero()[:, 0].tolist()) == set(support.tolist())


def test_a_contractive_second_of_two_loses_its_share_of_what_the_first_keeps():
    layout, x = Layout.flat(4_000), torch.from_numpy(gauss(4_000)).float()
    first, second = TopK(0.1), Eden(2, biased=True)
    compressor = Composed(first, second)
    held = float((x.abs().sort().values[-400:] ** 2).sum() / (x**2).sum())
    assert compressor.alpha(layout) == pytest.approx(first.alpha(layout) * second.alpha(Layout.flat(400)))
    assert compressor.omega(layout) is None
    assert float(errors(compressor, x, layout, 20)[0].mean()) == pytest.approx(1 - held * (1 - 0.1175), abs=0.005)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Composed(TopK(), Natural()),  # unbiased after biased is neither
        lambda: Composed(Natural(), TopK()),
        lambda: Composed(Scaled(Natural()), TopK()),  # does not keep entries as they are
        lambda: Induced(Natural(), RandK()),
        lambda: Induced(TopK(), TopK()),
        lambda: Mixed(TopK(), Natural()),
        lambda: Mixed(least=-1),
        lambda: Scaled(TopK()),
    ],
)
def test_pairs_that_are_neither_unbiased_nor_contractive_are_refused(make):
    with pytest.raises(ValueError, match="allowed"):
        make()


def test_each_tensor_is_compressed_by_the_rule_that_takes_it():
    x = torch.from_numpy(gauss(MODEL.numel)).float()
    compressor = Mixed(Natural(), Identity(), 300, RandK(0.25, "fp32"), Eden(2), "embed*, head.*")
    assert compressor.roles(MODEL) == (3, 2, 1, 0, 3)
    encoded = compressor.encode(x, MODEL, KEY)
    found, exact = MODEL.unflatten(encoded.decoded), MODEL.unflatten(x)
    assert torch.equal(found["body.bias"], exact["body.bias"])
    assert int((found["body.weight"] != 0).sum()) == 300
    assert bool((torch.log2(found["scale"].abs()) % 1 == 0).all()), "powers of two"
    for name in ("embedding.weight", "head.weight"):
        gap = float(((found[name] - exact[name]) ** 2).sum() / (exact[name] ** 2).sum())
        assert 0 < gap < 0.2
    assert torch.equal(found["embedding.weight"][0] != 0, torch.ones(20, dtype=torch.bool))
    assert encoded.payload.codec == "mixed(natural,identity,rand-k,eden)"
    assert compressor.omega(MODEL) == pytest.approx(3.0)
    assert compressor.omega(Layout((Entry("x", (500,)),))) == 1 / 8, "of the parts that have a tensor"
    assert same_bits(over_the_wire(encoded, MODEL, compressor), encoded.decoded)


def test_mixed_sends_small_tensors_whole_by_default():
    compressor, x = Mixed(), torch.from_numpy(gauss(MODEL.numel)).float()
    assert compressor.roles(MODEL) == (0, 0, 1, 0, 0)
    assert compressor.alpha(MODEL) == TopK().alpha(MODEL)
    found = MODEL.unflatten(compressor.encode(x, MODEL, KEY).decoded)
    assert torch.equal(found["body.bias"], MODEL.unflatten(x)["body.bias"])
    assert int((found["embedding.weight"] != 0).sum()) == 10


def test_a_kind_that_no_part_has_is_refused():
    compressor, x = Mixed(), torch.from_numpy(gauss(MODEL.numel)).float()
    payload = compressor.encode(x, MODEL, KEY).payload
    tall, other = (pack_symbols([np.array(roles, np.uint8)]) for roles in ([0, 0, 1, 0, 2], [1, 0, 1, 0, 0]))
    for stream in (tall, other, payload.streams[0][:-1], b""):  # a part too many, one with other tensors, cut
        with pytest.raises(WireError):
            Mixed.decode(replace(payload, streams=(stream, *payload.streams[1:])), MODEL, KEY)


def test_combinators_nest_in_each_other_over_the_wire():
    x = torch.from_numpy(gauss(MODEL.numel)).double()
    inner = Composed(RandK(0.3, "fp32"), Eden(4))
    for compressor in (
        Scaled(inner),
        Mixed(Scaled(inner), Identity(), matrices=Composed(TopK(0.2), Eden(2, biased=True))),
        Induced(TopK(0.1), inner),
        Scaled(Induced(Mixed(), inner)),
    ):
        encoded = compressor.encode(x, MODEL, KEY)
        assert same_bits(over_the_wire(encoded, MODEL, compressor), encoded.decoded)
        assert 0 < (compressor.alpha(MODEL) or 1 / (1 + compressor.omega(MODEL))) < 1
        least = compressor.least_bits(encoded, MODEL)
        leaves = 1 + encoded.payload.codec.count(",")
        assert 0.9 * least < 8 * encoded.payload.size < 1.05 * least + 1_024 * leaves
        assert decode(encoded.payload, Expectation(MODEL, torch.float64, compressor.codecs), KEY).shape == x.shape


@pytest.mark.parametrize(
    "codec",
    ["composed(rand-k,natural)", "composed(rand-k)", "composed(unknown,eden)", "composed(composed(rand-k,eden),eden)"],
)
def test_a_peer_cannot_smuggle_another_codec_inside(codec):
    layout, x = Layout.flat(600), torch.from_numpy(gauss(600)).float()
    expected = Composed(RandK(0.5, "fp32"), Eden(4))
    payload = replace(expected.encode(x, layout, KEY).payload, codec=codec)
    with pytest.raises(WireError, match="not allowed"):
        decode(payload, Expectation(layout, torch.float32, expected.codecs), KEY)
    with pytest.raises(WireError):
        Composed.decode(payload, layout, KEY)


def test_a_first_message_that_should_not_be_there_is_refused():
    layout, x = Layout.flat(600), torch.from_numpy(gauss(600)).float()
    payload = Composed(Natural(), Eden(4)).encode(x, layout, KEY).payload
    shell, second = unnest(payload, 2)
    for changed in (replace(shell, parameters=b"a"), replace(shell, streams=(b"",))):
        with pytest.raises(WireError, match="with a message of natural"):
            Composed.decode(nest("composed", (changed, second)), layout, KEY)


def test_the_streams_of_randomness_are_independent():
    """Rand-k after Rand-k with one stream for both would keep the same entries; here about a half of them."""
    layout, x = Layout.flat(4_096), torch.ones(4_096)
    found = Composed(RandK(0.5, "fp32"), RandK(0.5, "fp32")).encode(x, layout, KEY).decoded
    assert int((found != 0).sum()) == 1_024
    both = Induced(RandK(0.5, "fp32", biased=True), RandK(0.5, "fp32")).encode(x, layout, KEY).decoded
    once, twice, never = ((both == value).sum() for value in (1, 2, 0))
    assert abs(int(twice) - 1_024) < 150  # dropped by the first, kept by the second
    assert int(once) == 2_048
    assert int(never) == 2_048 - int(twice)


def tensors_of(warm):
    """All tensors of a nest of tuples."""
    return [warm] if isinstance(warm, torch.Tensor) else [one for inner in warm or () for one in tensors_of(inner)]


def test_warm_starts_pass_through_every_combinator():
    layout = Layout((Entry("matrix", (60, 40)), Entry("bias", (40,))))
    x, power = torch.from_numpy(gauss(layout.numel)).float(), Power(2, warm=True)
    for compressor in (
        Mixed(TopK(), Identity(), matrices=power),
        Induced(power, RandK(0.5)),
        Scaled(Induced(power, RandK(0.5))),
        Induced(Mixed(matrices=power), RandK(0.5)),
        Composed(Induced(power, RandK(0.5)), Natural()),
    ):
        warm = None
        for number in range(20):
            last, warm = warm, compressor.encode(x, layout, KEY.at(round=number), warm=warm).warm
        (before,), (after,) = tensors_of(last), tensors_of(warm)
        spans = [torch.linalg.qr(directions)[0] for directions in (before, after)]
        assert float((spans[0].T @ spans[1]).square().sum()) > 1.9  # settled on the two directions of the best rank
        for nonsense in ("text", (None,), (1, 2, 3)):
            assert compressor.encode(x, layout, KEY, warm=nonsense).payload == compressor.encode(x, layout, KEY).payload
