"""Codecs by themselves, in NumPy: bytes, errors, speed, memory, random numbers."""
