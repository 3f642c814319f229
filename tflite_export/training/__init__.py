"""Keras models as .tflite files that train on a device with the built-in operators alone."""

from tflite_export.training.export import export_training
from tflite_export.training.export import TrainingFile
from tflite_export.training.parity import Parity
from tflite_export.training.parity import Tolerances
from tflite_export.training.structured import LowRank
from tflite_export.training.structured import RandomMask
