"""Keras models as .tflite files that predict: recipes, from float32 to pruned and clustered int8, and their comparison.

A recipe is a text of parts. `part.py` says what a part is, `parts/` has one in each file, `recipes.py` reads the text:
all of that without TensorFlow. `finetuning.py` is what parts train with, `distillation.py` one of them at length.
`export.py` makes files, `gate.py` compares them with the model, `comparison.py` makes the table of `tflite-export
compare`.
"""

from tff_compress.codec import discovery

_LAZY = {
    'compare': 'tflite_export.inference.comparison',
    'distill': 'tflite_export.inference.distillation',
    'export_inference': 'tflite_export.inference.export',
    'InferenceFile': 'tflite_export.inference.export',
    'Training': 'tflite_export.inference.finetuning',
}

__all__ = list(_LAZY)

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
