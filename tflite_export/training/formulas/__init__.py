"""Formulas for operators that the built-in runtime cannot compute or differentiate, a family to a file."""

from tflite_export.training.formulas import activations
from tflite_export.training.formulas import convolution
from tflite_export.training.formulas import depthwise
from tflite_export.training.formulas import lookup
from tflite_export.training.formulas import losses
from tflite_export.training.formulas import normalization
from tflite_export.training.formulas import pooling
from tflite_export.training.formulas import resizing
from tflite_export.training.formulas import slicing
from tflite_export.training.formulas.registry import FORWARD
from tflite_export.training.formulas.registry import GRADIENTS
from tflite_export.training.formulas.registry import UNSUPPORTED
