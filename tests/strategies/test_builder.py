import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from compressors import Compressor
from compressors.composed import Composed
from compressors.eden import Eden
from compressors.identity import Identity
from compressors.induced import Induced
from compressors.mixed import Mixed
from compressors.natural import Natural
from compressors.rand_k import RandK
from compressors.scaled import Scaled
from compressors.top_k import TopK
from strategies import builder
from strategies.base import Downlink, Federation, Method
from strategies.builder import build_compressor, build_method
from strategies.channels import EF21P, Dense, Direct
from strategies.descent import Descent
from strategies.ef14 import EF14
from strategies.ef21 import EF21
from strategies.fedavg import FedAvg
from strategies.optimisers import SGD, torch_optimisers
from thinwire.config import set_keys
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.presets import PRESETS
from thinwire.run_config import RunConfig

TOP = {"name": "top-k", "fraction": 0.05}


def test_a_method_is_built_from_plain_options():
    built = build_method({"name": "ef14", "decay": 0.9}, TOP, {"name": "natural"}, {"rate": 0.5}, "minibatch")
    assert built == Descent(EF14(TopK(0.05), 0.9), SGD(0.5), EF21P(Natural()), "minibatch")


def test_with_a_name_alone_it_is_uncompressed_local_training():
    assert build_method({"name": "fedavg"}) == Descent(FedAvg(Identity()), SGD(1.0), Dense(), "steps")
    assert build_method({"name": "ef21"}) == Descent(EF21(Identity()))


@pytest.mark.parametrize(
    ("downlink", "channel"),
    [
        ({}, Dense()),
        ({"name": "identity"}, Dense()),
        ({"name": "identity", "channel": "dense"}, Dense()),
        ({"name": "identity", "channel": "ef21-p"}, EF21P(Identity())),
        ({"name": "natural"}, EF21P(Natural())),
        ({"name": "natural", "channel": "direct"}, Direct(Natural())),
        ({**TOP, "channel": "ef21-p"}, EF21P(TopK(0.05))),
    ],
)
def test_the_channel_follows_from_the_compressor_unless_it_is_named(downlink, channel):
    assert build_method({"name": "ef21"}, downlink=downlink).channel == channel


def test_a_compressor_inside_another_is_given_the_same_way():
    outer = build_compressor({"name": "scaled", "inner": {"name": "natural"}}, "uplink")
    assert outer == build_compressor({"name": "scaled", "inner": "natural"}, "uplink")
    assert isinstance(outer.inner, Natural)
    with pytest.raises(ConfigError, match=r"uplink\.inner\.fractoin"):
        build_compressor({"name": "scaled", "inner": {"name": "top-k", "fractoin": 0.1}}, "uplink")


def test_compressors_by_the_kind_of_tensor_are_set_by_keys_one_by_one():
    assignments = ["uplink.name=mixed", "uplink.large.fraction=0.1", "uplink.matrices.name=scaled"]
    assignments += ["uplink.matrices.inner.name=rand-k", "uplink.matrices.inner.values=fp32"]
    assignments += ["uplink.named=top-k", 'uplink.names="*embed*,head.*"', "uplink.least=100"]
    config = RunConfig.of(set_keys({}, assignments))
    matrices = Scaled(RandK(values="fp32"))
    expected = Mixed(TopK(0.1), Identity(), 100, matrices, TopK(), "*embed*,head.*")
    built = build_method(config.method, config.uplink, config.downlink, config.optimiser)
    assert built.uplink == {"update": expected}
    for key, message in (
        ("uplink.large.fractoin=1", r"uplink\.large\.fractoin"),
        ("uplink.matrices.inner.name=top-k", r"uplink\.matrices: inner = TopK"),
        ("uplink.smal=natural", r"uplink\.smal.*did you mean 'small'"),
        ("uplink.small.name=natural", "all unbiased, or all contractive"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_compressor(RunConfig.of(set_keys({}, [*assignments, key])).uplink, "uplink")


def test_nested_compressors_are_named_with_their_keys():
    options = {"name": "induced", "contractive": {"name": "top-k", "fraction": 0.1}, "unbiased": "natural"}
    assert build_compressor(options, "uplink") == Induced(TopK(0.1), Natural())
    composed = {
        "name": "composed",
        "first": {"name": "rand-k", "values": "fp32"},
        "second": {"name": "eden", "bits": 2},
    }
    assert build_compressor(composed, "uplink") == Composed(RandK(values="fp32"), Eden(2))
    with pytest.raises(ConfigError, match=r"'uplink\.second' is missing"):
        build_compressor({"name": "composed", "first": "natural"}, "uplink")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "'method.name' is missing; known: .*ef21"),
        (({"name": "ef12"},), "unknown method 'ef12'; did you mean 'ef"),
        (({"name": "descent"},), "unknown method 'descent'"),
        (({"name": "ef14", "deacy": 0.9},), "unknown key 'method.deacy'; did you mean 'decay'"),
        (({"name": "ef14", "decay": 2.0},), "decay = 2.0 and absence_decay = 1.0 must lie in"),
        (({"name": "ef14", "decay": "much"},), "method.decay = 'much'"),
        (({"name": "ef21", "compressor": "top-k"},), "unknown key 'method.compressor'"),
        (({"name": "ef21"}, {"name": "topk"}), "unknown compressor 'topk'; did you mean 'top-k'"),
        (({"name": "ef21"}, {"name": "top-k", "fracton": 1}), "unknown key 'uplink.fracton'; did you mean 'fraction'"),
        (({"name": "fedavg"}, TOP), "biased compressor 'top-k': choose method ef21 or ef14, or .*identity.*natural"),
        (
            ({"name": "ef21"}, {}, {**TOP, "channel": "ef21p"}),
            "unknown downlink.channel 'ef21p'; did you mean 'ef21-p'",
        ),
        (({"name": "ef21"}, {}, {**TOP, "channel": "dense"}), "sends the model as it is; with 'top-k' use 'ef21-p'"),
        (({"name": "ef21"}, {}, {"channel": "direct", "nam": 1}), "unknown key 'downlink.nam'"),
        (({"name": "ef21"}, {}, {}, {"name": "sdg"}), "did you mean 'sgd'"),
        (({"name": "ef21"}, {}, {}, {"rat": 1.0}), "unknown key 'optimiser.rat'; did you mean 'rate'"),
        (({"name": "ef21"}, {}, {}, {}, "step"), "unknown work 'step'; did you mean 'steps'"),
    ],
)
def test_what_is_wrong_or_refused_by_theory_is_named_with_what_would_fit(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_method(*arguments)


def test_an_optimiser_of_matrices_may_be_built_before_the_model_is_known():
    if "muon" in torch_optimisers():
        assert build_method({"name": "fedavg"}, optimiser={"name": "muon"}).optimiser.kind is torch.optim.Muon


@dataclass(frozen=True)
class Lawless(Identity):
    """A compressor that promises nothing."""

    def omega(self, layout: Layout) -> None:
        return None

    def alpha(self, layout: Layout) -> None:
        return None


@pytest.mark.parametrize("estimator", [FedAvg(Lawless()), EF14(Lawless()), EF21(Lawless())])
def test_a_compressor_of_which_theory_says_nothing_is_refused_by_every_estimator(estimator):
    with pytest.raises(ConfigError, match="choose"):
        Descent(estimator).check(Federation.uniform(Layout.flat(8), 2), 1.0)


@pytest.mark.parametrize("channel", [EF21P(Lawless()), Direct(Lawless())])
def test_and_by_every_channel(channel):
    with pytest.raises(ConfigError, match=r"downlink channel .* choose one of .*natural"):
        Descent(FedAvg(), channel=channel).check(Federation.uniform(Layout.flat(8), 2), 1.0)


@dataclass(frozen=True)
class Whole(Method):
    """A whole method with the parts that a test gives it: here an uplink compressor only."""

    name: ClassVar[str] = "whole"
    compressor: Compressor = Identity()  # noqa: RUF009
    rate: float = 0.1

    def begin(self, x0: torch.Tensor, federation: Federation) -> Any:
        return x0, None

    def join(self, replica: Any, mirror: Any = None) -> None:
        return None

    def respond(self, replica: Any, private: Any, oracle: Any, round: Any) -> Any:
        return None, {"gradient": self.compressor.encode(oracle.full(replica), round.federation.layout, round.key("g"))}

    def step(self, replica: Any, server: Any, uplinks: Any, round: Any) -> Any:
        return None, Downlink({})

    def apply(self, replica: Any, downlink: Any, round: Any) -> Any:
        return replica

    def model(self, replica: Any, server: Any = None) -> Any:
        return replica

    @property
    def uplink(self) -> Any:
        return {"gradient": self.compressor}

    @property
    def downlink(self) -> Any:
        return {}


@dataclass(frozen=True)
class WholeWithAll(Whole):
    """With a field for every part."""

    downlink_compressor: Compressor = Identity()  # noqa: RUF009
    optimiser: Any = None
    work: str = "steps"


def test_a_whole_method_gets_the_parts_that_it_has_fields_for(monkeypatch):
    monkeypatch.setattr(builder, "find_method", {"whole": Whole, "all": WholeWithAll}.__getitem__)
    assert build_method({"name": "whole", "rate": 0.5}, {"name": "natural"}) == Whole(Natural(), 0.5)
    assert build_method({"name": "whole"}, {}, {"name": "identity"}, {"name": "sgd"}) == Whole()
    everything = build_method({"name": "all"}, TOP, {"name": "natural"}, {"rate": 2.0}, "full")
    assert everything == WholeWithAll(TopK(0.05), 0.1, Natural(), SGD(2.0), "full")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (({}, {"name": "natural"}), "whole .* remove the keys downlink"),
        (({}, {}, {"rate": 2.0}), "whole .* remove the keys optimiser"),
        (({}, {}, {}, "full"), "whole decides itself what a client computes; remove work = 'full'"),
    ],
)
def test_options_for_a_part_that_a_whole_method_lacks_are_refused(monkeypatch, parts, message):
    monkeypatch.setattr(builder, "find_method", lambda name: Whole)
    with pytest.raises(ConfigError, match=message):
        build_method({"name": "whole"}, *parts)


DROPPED_ESTIMATOR = '''
from dataclasses import dataclass
from typing import ClassVar
from strategies.fedavg import FedAvg

@dataclass(frozen=True)
class Halved(FedAvg):
    """FedAvg at half its rate."""

    name: ClassVar[str] = "halved"
    share: float = 0.5

    def aggregate(self, server, uplinks, round):
        _, total = super().aggregate(server, uplinks, round)
        return None, self.share * total
'''

DROPPED_RUN = """
import sys
import strategies
strategies.__path__.append(sys.argv[1])
from strategies.builder import build_method
from strategies.loop import run
from strategies.problems import ridge
from strategies.registry import method_names
problem = ridge()
assert "halved" in method_names() and "whole" in method_names(), method_names()
halved = build_method({"name": "halved"}, optimiser={"rate": 2 / problem.L}, work="full")
plain = build_method({"name": "fedavg"}, optimiser={"rate": 1 / problem.L}, work="full")
assert run(halved, problem, 5).errors == run(plain, problem, 5).errors
print(type(build_method({"name": "whole"})).__module__)
"""


def test_a_method_is_one_new_file_and_nothing_else_is_edited(tmp_path):
    (tmp_path / "halved.py").write_text(DROPPED_ESTIMATOR)
    source = Path(__file__).read_text()
    imports, body = source.split("TOP = ")[0], source.split("@dataclass(frozen=True)\nclass Whole(Method)")[1]
    whole = (
        "@dataclass(frozen=True)\nclass Whole(Method)" + body.split("@dataclass(frozen=True)\nclass WholeWithAll")[0]
    )
    (tmp_path / "whole.py").write_text(imports.replace("import pytest\n", "") + whole)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DROPPED_RUN, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "strategies.whole"


LOCAL = {"rate": 0.05, "steps": 4}


@pytest.mark.parametrize(
    ("method", "optimiser", "work", "local", "rate"),
    [
        ("ef21", {}, "steps", LOCAL, 1.0),  # an update carries the local rate
        ("ef21", {"name": "sgd"}, "minibatch", LOCAL, 0.05),
        ("ef21", {}, "full", LOCAL, 0.05),
        ("ef21", {"rate": 0.3}, "full", LOCAL, 0.3),
        ("ef21", {"lr": 0.3}, "full", LOCAL, 0.3),
        ("ef21", {}, "full", {}, 1.0),  # nothing is known of local steps
        ("scaffold", {}, "steps", LOCAL, 0.2),  # the length of the path
        ("scaffold", {"rate": 0.3}, "steps", {**LOCAL, "epochs": 2}, 0.3),
    ],
)
def test_without_a_rate_the_server_takes_1_for_updates_and_the_local_rate_for_gradients(
    method, optimiser, work, local, rate
):
    assert build_method({"name": method}, optimiser=optimiser, work=work, local=local).optimiser.rate == rate


def test_momentum_on_the_server_has_the_same_default_rate_and_other_optimisers_their_own():
    momentum = build_method({"name": "ef21"}, optimiser={"momentum": 0.9}, work="full", local=LOCAL)
    assert dict(momentum.optimiser.options)["lr"] == 0.05
    adam = build_method({"name": "ef21"}, optimiser={"name": "adam"}, work="full", local=LOCAL)
    assert "lr" not in dict(adam.optimiser.options)


@pytest.mark.parametrize("name", ["ef21-bc", "double-squeeze"])
def test_a_whole_method_with_a_rate_of_its_own_has_the_same_default(name):
    assert build_method({"name": name}, local=LOCAL).rate == 1.0
    assert build_method({"name": name}, work="minibatch", local=LOCAL).rate == 0.05
    assert build_method({"name": name, "rate": 0.3}, work="full", local=LOCAL).rate == 0.3
    assert build_method({"name": name}, {}, {}, {"name": "sgd"}, "full", local=LOCAL).rate == 0.05


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"optimiser": "AdamW"}, "method scaffold corrects plain SGD steps; remove local.optimiser = 'adamw'"),
        ({"momentum": 0.9}, "corrects plain SGD steps"),
        ({**LOCAL, "epochs": 1}, "cannot know how many steps local.epochs are; give optimiser.rate"),
        ({"rate": "fast", "steps": 3}, "local.rate = 'fast' or local.steps is no number"),
    ],
)
def test_a_method_that_normalises_the_local_path_refuses_what_it_cannot(local, message):
    with pytest.raises(ConfigError, match=message):
        build_method({"name": "scaffold"}, local=local)


def test_a_preset_is_no_method_but_is_told_apart_from_a_slip():
    with pytest.raises(ConfigError, match="'diloco' is no method but a preset of a whole run"):
        build_method({"name": "diloco"})
    with pytest.raises(ConfigError, match="did you mean 'diloco'"):
        build_method({"name": "diloko"})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_run_that_can_be_built(name):
    config = RunConfig.of({"method": name})
    parts = config.method, config.uplink, config.downlink, config.optimiser
    assert build_method(*parts, local=config.local).uplink
