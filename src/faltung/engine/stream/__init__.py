"""Streams: networks that hear themselves, sample by sample, as one loop of machine code."""
