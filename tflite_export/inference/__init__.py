"""Keras models as .tflite files that predict: recipes, from float32 to pruned and clustered int8, and their comparison.

`recipes.py` has the texts, `finetuning.py` the parts that train, `export.py` makes files, `comparison.py` the table of
`tflite-export compare`.
"""

from tflite_export.inference.comparison import compare
from tflite_export.inference.export import export_inference
from tflite_export.inference.export import InferenceFile
from tflite_export.inference.finetuning import distill
from tflite_export.inference.finetuning import Training

__all__ = ('InferenceFile', 'Training', 'compare', 'distill', 'export_inference')
