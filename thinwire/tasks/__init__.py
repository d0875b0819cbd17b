"""Tasks: the contract, and those that are built in."""

from thinwire.tasks.base import Examples, Task
from thinwire.tasks.registry import initial_model, load_task, registry, trainable_layout, trainable_patterns

__all__ = ["Examples", "Task", "initial_model", "load_task", "registry", "trainable_layout", "trainable_patterns"]
