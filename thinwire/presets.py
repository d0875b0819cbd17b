"""Published combinations by one name: ``method.name = "diloco"`` stands for a method, its compressors and optimisers.

A preset lies between the defaults of a run and what the run itself says: every key of it can be given another value.
The configuration that a run keeps and sends to its clients is the expanded one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinwire.config import merge

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """What a name stands for, and where it was published."""

    summary: str
    sections: Mapping[str, Options]  # of a RunConfig; ``method`` names a method of ``strategies/``


ADAMW = {"optimiser": "adamw", "rate": 4e-4, "weight_decay": 0.1, "keep": True}

PRESETS: dict[str, Preset] = {
    "diloco": Preset(
        "Hundreds of local AdamW steps, their mean taken as the gradient of SGD with Nesterov momentum: Douillard et "
        'al., "DiLoCo: distributed low-communication training of language models", 2023, '
        "https://arxiv.org/abs/2311.08105.",
        {
            "method": {"name": "fedavg"},
            "uplink": {"name": "identity"},
            "downlink": {"name": "identity"},
            "optimiser": {"name": "sgd", "rate": 0.7, "momentum": 0.9, "nesterov": True},
            "local": {**ADAMW, "steps": 500},
            "participation": {"fraction": 1.0},
        },
    ),
    "sparse-loco": Preset(
        "DiLoCo with Top-k in chunks at two bits a value, under error feedback whose decaying residual stands in for "
        'the momentum: Sarfi et al., "Communication efficient LLM pre-training with SparseLoCo", 2025, '
        "https://arxiv.org/abs/2508.15706.",
        {
            "method": {"name": "ef14", "decay": 0.95},
            "uplink": {"name": "top-k", "fraction": 0.02, "scope": "chunk", "chunk": 4096, "values": "2-bit"},
            "downlink": {"name": "identity"},
            "optimiser": {"name": "sgd", "rate": 1.0},
            "local": {**ADAMW, "steps": 30},
            "participation": {"fraction": 1.0},
        },
    ),
    "powersgd": Preset(
        "Every matrix as a few directions, found by power iteration from where the last one ended, under error "
        'feedback: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed '
        'optimization", NeurIPS 2019, https://arxiv.org/abs/1905.13727; each client factors its own.',
        {"method": {"name": "ef14"}, "uplink": {"name": "power", "rank": 4, "warm": True}},
    ),
    "fed-ef": Preset(
        "Local SGD under error feedback, residuals of absent clients frozen (or fading, by method.absence_decay): Li, "
        'Li, "Analysis of error feedback in federated non-convex optimization with biased compression", ICML 2023, '
        "https://arxiv.org/abs/2211.14292.",
        {"method": {"name": "ef14"}, "downlink": {"name": "identity"}, "optimiser": {"name": "sgd", "rate": 1.0}},
    ),
    "fed-cams": Preset(
        'Fed-EF whose server steps by FedAMS: Wang, Lin, Chen, "Communication-efficient adaptive federated learning", '
        "ICML 2022, https://arxiv.org/abs/2205.02719.",
        {"method": {"name": "ef14"}, "downlink": {"name": "identity"}, "optimiser": {"name": "fedams"}},
    ),
}


def expand(options: Options) -> dict[str, Any]:
    """The options of a run with the preset that ``method`` names, if it names one, put under them."""
    method = options.get("method")
    name = method.get("name") if isinstance(method, Mapping) else method
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        return dict(options)
    further = {key: value for key, value in method.items() if key != "name"} if isinstance(method, Mapping) else {}
    given = {**options, "method": further}
    return {**given, **{section: over(below, given.get(section, {})) for section, below in preset.sections.items()}}


def over(below: Options, given: Any) -> Any:
    """A section's options over those below it; naming another part drops the options of the one replaced."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        return given
    keep = "name" not in given or given["name"] == below.get("name")
    return merge(below, given) if keep else dict(given)
