"""The codec in TensorFlow graphs: the operation table, key derivation, and functions that make and read frames."""

from tff_compress.tensorflow.messages import MessageFunctions

__all__ = ['MessageFunctions']
