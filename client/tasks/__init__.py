"""Tasks: the contract, and those that are built in."""

from client.tasks.base import Examples, Task
from client.tasks.registry import initial_model, load_task, registry, trainable_layout, trainable_patterns

__all__ = ["Examples", "Task", "initial_model", "load_task", "registry", "trainable_layout", "trainable_patterns"]
