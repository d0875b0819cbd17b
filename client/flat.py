"""A task's model whose trainable parameters are views of one flat vector, and their gradients views of another."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from client.local import LocalOptions
from strategies.buffers import Buffers
from thinwire import state
from thinwire.device import reproducible, seeded
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.random import Key
from thinwire.tasks.base import Task


class FlatModel:
    """A module that computes with ``vector`` (flat, in the layout's order) and leaves gradients in ``gradient``.

    Those of parameters whose names ``ascends`` accepts come with the other sign: the operator of a saddle point.
    Parameters outside the layout keep their values and get no gradient. Owns the module: nothing else may replace its
    parameters. Raises ConfigError when the layout is not of this module.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device,
        ascends: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.module = module.to(device=device, dtype=dtype)
        self.layout = layout
        self.parameters: list[nn.Parameter] = []
        self.frozen: dict[str, nn.Parameter] = {}
        named = dict(module.named_parameters())
        self.vector = layout.flatten(named)
        self.gradient = torch.zeros_like(self.vector)
        self._slots: list[Tensor] = []
        slots = zip(layout.unflatten(self.vector).items(), layout.unflatten(self.gradient).values(), strict=True)
        for (name, value), slot in slots:
            parameter = named.pop(name)
            parameter.data, parameter.grad = value, slot
            parameter.requires_grad_(True)
            self.parameters.append(parameter)
            self._slots.append(slot)
        for name, parameter in named.items():
            parameter.requires_grad_(False)
            self.frozen[name] = parameter
        spans = zip(layout.entries, layout.offsets, strict=False)
        self._ascending = [slice(start, start + entry.numel) for entry, start in spans if ascends(entry.name)]
        sidecar = Buffers.of(module)
        self.buffer_layout = sidecar.layout if sidecar is not None else None
        kept = module.state_dict(keep_vars=True)
        self._counters = {
            name: buffer.clone()
            for name, buffer in module.named_buffers()
            if name in kept and not buffer.is_floating_point()
        }

    def load(self, x: Tensor) -> None:
        """Copy a point into the parameters, and start counters anew. Raises ConfigError on another size.

        Integer buffers (batch norm's number of batches) never travel: an answer that depended on what this process
        computed before would differ between hosts, and after a restart.
        """
        if x.shape != self.vector.shape:
            raise ConfigError(
                f"a point of shape {tuple(x.shape)} was given; the model has {self.vector.numel()} parameters"
            )
        self.vector.copy_(x)
        named = dict(self.module.named_buffers()) if self._counters else {}
        for name, value in self._counters.items():
            named[name].copy_(value)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to ``gradient``, or subtract it where parameters ascend."""
        if loss.dim():
            raise ConfigError(f"the task's loss has shape {tuple(loss.shape)}; it must be the mean, a scalar")
        self.turn(self.gradient)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, slot in zip(self.parameters, self._slots, strict=True):
            grad = parameter.grad
            if grad is not slot:  # the model or autograd replaced it (a sparse gradient does)
                if grad is not None:
                    slot.copy_(grad.to_dense() if grad.is_sparse else grad)
                parameter.grad = slot
        self.turn(self.gradient)

    def turn(self, gradients: Tensor) -> Tensor:
        """Change, in place, the signs of those that ascend; the last dimension is the layout's. Returns its input."""
        for part in self._ascending:
            gradients[..., part].neg_()
        return gradients

    @property
    def buffers(self) -> Tensor:
        """The floating-point buffers, new and flat, in the order of ``buffer_layout``; empty when there are none."""
        if self.buffer_layout is None:
            return self.vector.new_empty(0)
        return self.buffer_layout.flatten(dict(self.module.named_buffers()), self.vector.dtype)

    @buffers.setter
    def buffers(self, value: Tensor) -> None:
        expected = self.buffer_layout.numel if self.buffer_layout is not None else 0
        if tuple(value.shape) != (expected,):
            raise ConfigError(
                f"buffers of shape {tuple(value.shape)} were given; the model has {expected} floats in its buffers"
            )
        if self.buffer_layout is not None:
            named = dict(self.module.named_buffers())
            for name, piece in self.buffer_layout.unflatten(value).items():
                named[name].copy_(piece)

    def load_frozen(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the frozen parameters. Raises ConfigError on a missing or unknown name and on another shape."""
        if set(tensors) != set(self.frozen):
            odd = sorted(set(tensors) ^ set(self.frozen))[0]
            raise ConfigError(
                f"frozen parameter {odd!r} is {'missing' if odd in self.frozen else 'unknown to the model'}"
            )
        for name, parameter in self.frozen.items():
            if tensors[name].shape != parameter.shape:
                raise ConfigError(
                    f"frozen parameter {name!r} has shape {tuple(tensors[name].shape)}; "
                    f"the model needs {tuple(parameter.shape)}"
                )
        for name, parameter in self.frozen.items():
            parameter.data.copy_(tensors[name])


class TorchModel:
    """A task's model at work, warm; the oracles of one process share it, one call at a time.

    Takes the module over. Raises ConfigError when the layout is not of this module.
    """

    def __init__(
        self,
        task: Task,
        module: nn.Module,
        layout: Layout,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        options: LocalOptions | None = None,
    ) -> None:
        self.task = task
        self.layout = layout
        self.dtype = dtype
        self.device = torch.device(device)
        self.options = options if options is not None else LocalOptions()
        self.flat = FlatModel(module, layout, dtype, self.device, task.ascends)
        self._dropouts = [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]

    @property
    def buffer_layout(self) -> Layout | None:
        """The layout of the floating-point buffers; None when there are none."""
        return self.flat.buffer_layout

    def at(self, x: Tensor, buffers: Tensor | None = None) -> nn.Module:
        """The module at x (and with these buffers), in evaluation mode; the next call of an oracle changes it."""
        self.flat.load(x)
        if buffers is not None:
            self.flat.buffers = buffers
        return self.flat.module.eval()

    def frozen(self) -> dict[str, Tensor]:
        """The parameters outside the layout, by name."""
        return {name: parameter.detach() for name, parameter in self.flat.frozen.items()}

    def load_frozen(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters outside the layout. Raises ConfigError when names or shapes are not the model's."""
        self.flat.load_frozen(tensors)

    def frozen_digest(self) -> bytes:
        """Sixteen bytes over the parameters outside the layout; empty when there are none."""
        values = tuple(self.frozen().values())
        return state.digest(values) if values else b""

    @contextmanager
    def training(self, x: Tensor, key: Key, dropout: bool) -> Iterator[FlatModel]:
        """The model at x in training mode, its gradient zero, torch's generators seeded by the key."""
        self.flat.load(x)
        if self._dropouts or not self.flat.module.training:  # ``at`` leaves all of it in evaluation mode
            self.flat.module.train()
        if not dropout:
            for layer in self._dropouts:
                layer.eval()
        self.flat.gradient.zero_()
        with seeded(key, self.device), reproducible(self.device), torch.enable_grad():
            yield self.flat
