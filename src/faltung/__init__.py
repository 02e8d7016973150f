"""Faltung: convolutional networks on ordinary CPUs, every derivative written down, visible and checked."""

__version__ = "0.1.0"
