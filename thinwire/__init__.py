"""Thinwire: federated learning for machines joined by thin wires."""

__version__ = "0.1.0"
