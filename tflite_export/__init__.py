"""tflite_export: Keras models and codecs as small .tflite files that run with TensorFlow Lite's built-in operators
alone.

`export_training` makes a file that trains on the device, `export_inference` one that only predicts, `export_encoder`
and `export_decoder` turn a codec into files, `check_edgetpu` reads a file against the documented operator list, and
`export_plan` writes all of them with a manifest. TensorFlow is imported when one of them is used.
"""

from tff_compress.codec import discovery

_LAZY = {
    'export_training': 'tflite_export.training',
    'export_inference': 'tflite_export.inference',
    'distill': 'tflite_export.inference',
    'export_encoder': 'tflite_export.encoder',
    'export_decoder': 'tflite_export.encoder',
    'check_edgetpu': 'tflite_export.edgetpu',
    'export_plan': 'tflite_export.manifest',
    'ExportError': 'tflite_export.errors',
}

__all__ = list(_LAZY)

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
