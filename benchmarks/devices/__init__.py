"""Exported files in the interpreters of devices: size, time, memory, accuracy."""
