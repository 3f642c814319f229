"""Codecs on the device: what computes with real values in a codec as a .tflite file, the rest in the app.

    update --> [ encode.tflite ] --> symbols, side values --> [ app: coders, frame ] --> bytes
    bytes --> [ app: frame, coders ] --> symbols, side values --> [ decode.tflite ] --> variables

Where a codec begins with a learned encoder, its network may be a file of its own in int8, for an Edge TPU: networks.py.

layout.py says what goes into a file and comes out, ops.py is the table of operations that its graph is made of,
graph.py the graph, streams.py its random numbers, export.py makes the file. host.py is the app's half in NumPy, with
requests.py for random numbers: importing these loads no TensorFlow.
"""

from tff_compress.codec import discovery

_LAZY = {
    'Array': 'tflite_export.encoder.layout',
    'Export': 'tflite_export.encoder.export',
    'Layout': 'tflite_export.encoder.layout',
    'Network': 'tflite_export.encoder.networks',
    'PIECES': 'tflite_export.encoder.export',
    'Request': 'tflite_export.encoder.requests',
    'WORDS': 'tflite_export.encoder.export',
    'derive': 'tflite_export.encoder.requests',
    'draw': 'tflite_export.encoder.requests',
    'export_decoder': 'tflite_export.encoder.export',
    'export_encoder': 'tflite_export.encoder.export',
    'finish': 'tflite_export.encoder.host',
    'interface': 'tflite_export.encoder.export',
    'remembers': 'tflite_export.encoder.export',
    'start': 'tflite_export.encoder.host',
}

__all__ = list(_LAZY)

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
