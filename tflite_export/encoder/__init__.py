"""Codecs on the device: what computes with real values in a codec as a .tflite file, the rest in the app.

    update --> [ encode.tflite ] --> symbols, side values --> [ app: coders, frame ] --> bytes
    bytes --> [ app: frame, coders ] --> symbols, side values --> [ decode.tflite ] --> variables

Where a codec begins with a learned encoder, its network may be a file of its own in int8, for an Edge TPU: networks.py.

layout.py says what goes into a file and comes out, ops.py is the table of operations that its graph is made of,
graph.py the graph, streams.py its random numbers, export.py makes the file. host.py is the app's half in NumPy.
"""

from tflite_export.encoder.export import Export
from tflite_export.encoder.export import export_decoder
from tflite_export.encoder.export import export_encoder
from tflite_export.encoder.export import interface
from tflite_export.encoder.export import PIECES
from tflite_export.encoder.export import remembers
from tflite_export.encoder.export import WORDS
from tflite_export.encoder.host import finish
from tflite_export.encoder.host import start
from tflite_export.encoder.layout import Array
from tflite_export.encoder.layout import Layout
from tflite_export.encoder.networks import Network
from tflite_export.encoder.streams import derive
from tflite_export.encoder.streams import draw
from tflite_export.encoder.streams import Request

__all__ = ['Array', 'Export', 'Layout', 'Network', 'PIECES', 'Request', 'WORDS', 'derive', 'draw', 'export_decoder',
           'export_encoder', 'finish', 'interface', 'remembers', 'start']
