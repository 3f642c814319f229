"""The command `tff-compress`. program.py says what holds for all of its commands.

One file per command: codecs.py, frames.py (`inspect`), training.py (`run`, `compare`, `demo`), reports.py (`report`),
serving.py (`serve`, `replay`), device.py (`device`), autoencoders.py (`fit-autoencoder`). TensorFlow is imported by
the commands that train or learn, when they start, and by nothing else.
"""

import tff_compress
from tff_compress.cli import extras
from tff_compress.cli import program

PROGRAM = program.Program(
    name='tff-compress',
    description='Federated training with compressed uplinks and downlinks.',
    version=tff_compress.__version__,
    package='tff_compress.cli',
    commands=(
        ('run', 'train once, with one uplink and one downlink', 'training', ('tensorflow_federated',)),
        ('compare', 'train with several codecs on the same clients and seeds', 'training',
         ('tensorflow_federated', *extras.EXTRAS['plots'])),
        ('report', 'make the plots and the page of finished runs again', 'reports',
         extras.EXTRAS['plots']),
        ('demo', 'train a small CNN on digits with and without compression, up and down', 'training',
         ('tensorflow_federated', *extras.EXTRAS['plots'])),
        ('codecs', 'list the stages and presets that codecs are made of, with measured bits', 'codecs', ()),
        ('inspect', 'take a frame apart', 'frames', ()),
        ('serve', 'be the server of real devices, which train with a plan', 'serving',
         ('tensorflow_federated', *extras.EXTRAS['serve'])),
        ('device', 'be a device: take part in the training of a server', 'device', ('ai_edge_litert', 'jsonschema')),
        ('replay', "make a server's models again from the updates that it kept, and compare them", 'serving',
         ('tensorflow_federated', *extras.EXTRAS['serve'])),
        ('fit-autoencoder', 'learn an autoencoder from snapshots of updates', 'autoencoders', ('tensorflow',)),
    ),
    extra='tff',
    examples=(
        'tff-compress run --uplink int8 --downlink int8',
        "tff-compress compare --uplink int8 --uplink 'hadamard | uniform:bits=2 | pack' --seeds 3",
        'tff-compress codecs drive',
    ))

main = PROGRAM.main
