import pytest
import torch
from torch import nn

from strategies.adaptive import RULES
from strategies.descent import Descent
from strategies.ef21 import EF21
from strategies.loop import run
from strategies.optimisers import SGD, TorchOptimiser, build_optimiser, torch_optimisers
from strategies.problems import gaussian, quadratic
from thinwire import state
from thinwire.errors import ConfigError
from thinwire.layout import Entry, Layout
from thinwire.random import Key

LAYOUT = Layout((Entry("weight", (6, 4)), Entry("other", (4, 6))))
D = LAYOUT.numel


def directions(dtype):
    return [gaussian(Key(i, "direction"), D).to(dtype) for i in range(6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*sorted(torch_optimisers()), *RULES])
def test_an_optimiser_restored_from_its_saved_memory_goes_on_bit_for_bit(name, dtype):
    options = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    optimiser = build_optimiser({"name": name, "rate": 0.05, **options})
    x, memory = torch.ones(D, dtype=dtype), optimiser.begin(LAYOUT)
    y, kept = x, optimiser.begin(LAYOUT)
    for step, direction in enumerate(directions(dtype)):
        before = state.digest(x)
        after, memory = optimiser.step(x, direction, memory, LAYOUT)
        assert state.digest(x) == before
        x = after
        y, kept = optimiser.step(y, direction, state.load(state.dump(kept)), LAYOUT)
        assert state.same((x, memory), (y, kept)), f"step {step}"
    assert x.dtype == dtype
    assert not torch.equal(x, torch.ones(D, dtype=dtype))


@pytest.mark.parametrize(
    ("name", "options"),
    [("adam", {}), ("AdamW", {"weight_decay": 0.1}), ("sgd", {"momentum": 0.9}), ("adagrad", {}), ("muon", {})],
)
def test_the_model_moves_as_torch_moves_the_tensors_of_a_module(name, options):
    if name.lower() not in torch_optimisers():
        pytest.skip(f"this torch has no {name}")
    own = nn.ParameterDict({"weight": torch.ones(6, 4), "other": torch.ones(4, 6)})
    theirs = torch_optimisers()[name.lower()](own.values(), lr=0.05, **options)
    ours = build_optimiser({"name": name, "rate": 0.05, **options})
    x, memory = torch.ones(D), ours.begin(LAYOUT)
    for direction in directions(torch.float32):
        for key, gradient in LAYOUT.unflatten(direction).items():
            own[key].grad = gradient
        theirs.step()
        x, memory = ours.step(x, direction, memory, LAYOUT)
    assert torch.equal(x, LAYOUT.flatten(dict(own.items())))


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("rule", RULES)
def test_an_adaptive_rule_is_what_its_paper_says_entry_by_entry(rule, beta1):
    rate, beta2, tau = 0.1, 0.9, 0.01
    optimiser = build_optimiser({"name": rule, "rate": rate, "beta1": beta1, "beta2": beta2, "tau": tau})
    x, memory = torch.ones(D, dtype=torch.float64), optimiser.begin(LAYOUT)
    given = [
        direction * scale for direction, scale in zip(directions(torch.float64), (1, 3, 0.1, 0, 2, 1), strict=True)
    ]
    for direction in given:
        x, memory = optimiser.step(x, direction, memory, LAYOUT)
    for entry in range(D):
        y, m, v, u = 1.0, 0.0, tau**2, tau**2
        for direction in given:
            g = float(direction[entry])
            m = beta1 * m + (1 - beta1) * g
            if rule == "fedadagrad":
                v = v + g**2
            elif rule == "fedyogi":
                sign = (v > g**2) - (v < g**2)
                v = v - (1 - beta2) * g**2 * sign
            else:
                v = beta2 * v + (1 - beta2) * g**2
            u = max(u, v)
            y -= rate * m / ((u if rule == "fedams" else v) ** 0.5 + tau)
        assert float(x[entry]) == pytest.approx(y, rel=1e-12, abs=1e-14)  # a few dozen roundings of float64


@pytest.mark.parametrize("rule", RULES)
def test_every_adaptive_rule_trains_on_a_compressed_estimate(rule):
    problem = quadratic()
    method = Descent(
        EF21(), build_optimiser({"name": rule, "rate": 0.2 if rule == "fedadagrad" else 0.05}), work="full"
    )
    assert run(method, problem, 300).errors[-1] < 1e-2


def test_plain_sgd_is_ours_and_any_option_makes_it_torchs():
    assert build_optimiser({}) == SGD(1.0)
    assert build_optimiser({"name": "SGD", "lr": 0.5}) == SGD(0.5)
    momentum = build_optimiser({"momentum": 0.9})
    assert momentum == TorchOptimiser(torch.optim.SGD, (("lr", 1.0), ("momentum", 0.9)))


def test_lists_from_a_file_become_the_tuples_that_torch_wants():
    optimiser = build_optimiser({"name": "adam", "betas": [0.5, 0.9]})
    assert dict(optimiser.options)["betas"] == (0.5, 0.9)


def test_a_server_adam_trains_on_a_compressed_estimate():
    problem = quadratic()
    method = Descent(EF21(), build_optimiser({"name": "adam", "rate": 0.05}), work="full")
    trace = run(method, problem, 200)
    assert trace.errors[-1] < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sdg"}, "did you mean 'sgd'"),
        ({"name": "lbfgs"}, "unknown optimiser 'lbfgs'"),
        ({"name": "adam", "momentun": 0.9}, "unknown key 'optimiser.momentun'"),
        ({"name": "sgd", "momentun": 0.9}, "did you mean 'momentum'"),
        ({"name": "adam", "rate": -1.0}, "Invalid learning rate"),
        ({"name": "adam", "betas": 3}, "optimiser 'adam'"),
        ({"name": "sgd", "rate": 0}, "must be positive"),
        ({"name": "fedyogy"}, "did you mean 'fedyogi'"),
        ({"name": "fedyogi", "tua": 0.5}, "unknown key 'optimiser.tua'; did you mean 'tau'"),
        ({"name": "fedams", "beta2": 1.0}, r"beta1 = 0.9 and beta2 = 1.0 must lie in \[0, 1\)"),
        ({"name": "fedadagrad", "tau": 0.0}, "tau = 0.0 must be positive"),
        ({"name": "sgd", "rate": "fast"}, "optimiser 'sgd'"),
        ({"name": "sgd", "rate": 0.1, "nesterov": True}, "Nesterov"),
        ({"name": "adam", "rate": 0.1, "lr": 0.1}, "give one of them"),
    ],
)
def test_unknown_names_and_bad_options_are_refused_with_a_hint(options, message):
    with pytest.raises(ConfigError, match=message):
        build_optimiser(options)


@pytest.mark.skipif("muon" not in torch_optimisers(), reason="this torch has no Muon")
def test_an_optimiser_of_matrices_is_refused_for_a_model_of_vectors():
    with pytest.raises(ConfigError, match="'muon' cannot train this model"):
        build_optimiser({"name": "muon"}).check(Layout.flat(5))
