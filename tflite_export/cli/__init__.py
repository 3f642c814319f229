"""The command `tflite-export`. tff_compress/cli/program.py says what holds for all of its commands.

One file per command: training.py, inference.py (`inference`, `compare`), encoder.py (`encoder`, `decoder`), edgetpu.py
(`check-edgetpu`), plan.py. Each imports what it needs when it starts.
"""

import tff_compress
from tff_compress.cli import program

PROGRAM = program.Program(
    name='tflite-export',
    description='Turn Keras models and codecs into .tflite files that need only the built-in operators.',
    version=tff_compress.__version__,
    package='tflite_export.cli',
    commands=(
        ('plan', 'everything a device needs, in one folder with a manifest', 'plan', ('tensorflow', 'ai_edge_litert')),
        ('training', 'a model that trains on the device', 'training', ('tensorflow', 'ai_edge_litert')),
        ('inference', 'a model that predicts: quantized, pruned, clustered', 'inference', ('tensorflow',)),
        ('compare', 'size, accuracy and latency of each way to export for inference', 'inference',
         ('tensorflow', 'ai_edge_litert')),
        ('encoder', 'the numerical half of a codec, for messages to the server', 'encoder', ('tensorflow',)),
        ('decoder', 'the same for messages from the server', 'encoder', ('tensorflow',)),
        ('check-edgetpu', 'check a file against the documented operator list of the Edge TPU', 'edgetpu',
         ('ai_edge_litert',)),
    ),
    extra='tflite',
    examples=(
        'tflite-export plan model.keras --uplink drive --downlink int8 -o plan',
        'tflite-export training model.keras --optimizer sgd -o training.tflite',
        'tflite-export check-edgetpu model.tflite',
    ))

main = PROGRAM.main
