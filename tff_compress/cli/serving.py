"""`tff-compress serve` and `replay`: the server for real devices."""

import argparse
import os

from tff_compress.cli import arguments
from tff_compress.cli import output


def add_serve(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `serve` its options."""
  from tff_compress.serving.settings import Settings
  parser.set_defaults(function=_serve)
  parser.description = (
      'Train a model on devices: serve a plan, collect compressed updates, and make the next model of them. Prints the '
      'address of the status page and a code with which devices enrol. The same command goes on where it was stopped.')
  parser.epilog = """\
      example:
        tflite-export plan model.keras --uplink 'hadamard | uniform:bits=2 | pack' --downlink int8 -o plan
        tff-compress serve plan --model model.keras --goal 3 --rounds 5"""
  parser.add_argument('plan', metavar='PLAN', help='folder that tflite-export plan made')
  parser.add_argument('--model', metavar='FILE', required=True, help='the Keras model that the plan was made of')
  group = parser.add_argument_group('rounds')
  usual = Settings()
  group.add_argument('--rounds', metavar='N', type=arguments.whole_number(1, 10**6), default=usual.rounds,
                     help=f'how many ({usual.rounds})')
  group.add_argument('--goal', metavar='N', type=arguments.whole_number(1, 10**7), default=usual.goal,
                     help=f'a round ends with so many accepted updates ({usual.goal})')
  group.add_argument('--minimum', metavar='N', type=arguments.whole_number(1, 10**7), default=usual.minimum,
                     help=f'or at its deadline with so many; with fewer it gets as much time again ({usual.minimum})')
  group.add_argument('--deadline', metavar='SECONDS', type=arguments.number(above=0, most=30 * 86400),
                     default=usual.deadline, help=f'of a round ({usual.deadline:g})')
  group.add_argument('--lease', metavar='SECONDS', type=arguments.number(above=0, most=30 * 86400),
                     default=usual.lease, help=f'that a device has for an update ({usual.lease:g})')
  group.add_argument('--epochs', metavar='N', type=arguments.whole_number(1, 10**4), default=usual.epochs,
                     help=f'passes over the examples of a device ({usual.epochs})')
  group.add_argument('--learning-rate', metavar='X', type=arguments.number(above=0, most=1e6),
                     help="of training on devices (the plan's)")
  group.add_argument('--weighting', metavar='WORD', choices=('examples', 'uniform'), default=usual.weighting,
                     help='updates count by examples, as devices say them, or uniform: all the same '
                     f'({usual.weighting})')
  group.add_argument('--most-examples', metavar='N', type=arguments.whole_number(1, 2**31 - 1),
                     default=usual.most_examples, help=f'that an update counts for ({usual.most_examples})')
  group.add_argument('--norm', metavar='X', type=arguments.number(above=0),
                     help='reject updates with a larger L2 norm (any)')
  group.add_argument('--server-optimizer', metavar='NAME', choices=('sgd', 'adam', 'yogi', 'adagrad'),
                     default=usual.server_optimizer, help=f'sgd, adam, yogi or adagrad ({usual.server_optimizer})')
  group.add_argument('--server-learning-rate', metavar='X', type=arguments.number(above=0, most=1e6),
                     default=usual.server_learning_rate, help=f'({usual.server_learning_rate:g})')
  group.add_argument('--server-momentum', metavar='X', type=arguments.number(least=0, most=1),
                     default=usual.server_momentum, help=f'of sgd ({usual.server_momentum:g})')
  group.add_argument('--keep-frames', action='store_true', help='keep accepted updates, for tff-compress replay')
  group.add_argument('--data', metavar='NAME', help='data set to evaluate the model on after each round (none)')
  group = parser.add_argument_group('serving')
  group.add_argument('--state', metavar='DIR', default='server-state',
                     help='folder of all that the server knows (server-state)')
  group.add_argument('--database', metavar='URL', help='database in place of SQLite in that folder')
  group.add_argument('--blobs', metavar='URL', help='place for files other than that folder, such as s3://bucket')
  group.add_argument('--host', metavar='ADDRESS', default='127.0.0.1', help='to listen on (127.0.0.1)')
  group.add_argument('--port', metavar='N', type=arguments.whole_number(0, 65535), default=8080,
                     help='to listen on; 0 for any that is free (8080)')
  group.add_argument('--stay', action='store_true', help='serve the status page when the last round is over, too')


def _serve(options: argparse.Namespace) -> None:
  import dataclasses

  from tff_compress.serving import aggregator
  from tff_compress.serving import server
  from tff_compress.serving.evaluation import Model
  from tff_compress.serving.settings import Settings
  from tff_compress.serving.store import StoreError
  from tflite_export import manifest
  settings = Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)
                         if hasattr(options, field.name)})
  plan = manifest.load_plan(options.plan)
  model = Model(options.model, options.data)
  sock = server.listening(options.host, options.port)
  store = None
  try:
    store = aggregator.open_store(options.state, options.database, options.blobs)
    if store.tasks():
      task = aggregator.Task(store, aggregator.open_task(store))
      if task.plan != aggregator.digest_of(plan):
        raise StoreError(f'{options.state} holds a task of another plan: name another folder with --state.')
      if task.settings != settings:
        raise StoreError(f'{options.state} holds a task with other settings: give those that it was started with, or '
                         'name another folder with --state.')
    else:
      task = aggregator.Task(store, aggregator.begin(store, plan, model.weights, settings))
    code = store.property('code', server.new_code)
    worker = aggregator.Aggregator(task, model.evaluate if options.data else None, output.say)
    host, port = sock.getsockname()[:2]
    address = f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'
    print(f'Status page: {address}\nEnrolment code: {code}', flush=True)
    server.Server(task, worker, code, options.stay).run(
        sock, lambda: output.say('All rounds are committed.'))
  finally:
    sock.close()
    if store is not None:
      store.close()


def add_replay(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `replay` its options."""
  parser.set_defaults(function=_replay)
  parser.description = ('Fold the accepted updates of a server again, in the order of their numbers, and say whether '
                        'every model is the same, bit for bit. The server must have been started with --keep-frames.')
  parser.add_argument('folder', metavar='DIR', help='what --state of the server was')
  parser.add_argument('--database', metavar='URL', help='as for serve')
  parser.add_argument('--blobs', metavar='URL', help='as for serve')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _replay(options: argparse.Namespace) -> int:
  from tff_compress.serving import aggregator
  from tff_compress.serving.store import StoreError
  if options.database is None and not os.path.isfile(os.path.join(options.folder, 'server.sqlite')):
    raise StoreError(f'{options.folder} is no folder of a server: name what --state was.')
  store = aggregator.open_store(options.folder, options.database, options.blobs)
  try:
    rounds = aggregator.replay(aggregator.Task(store, aggregator.open_task(store)))
  finally:
    store.close()
  same = all(equal for *_, equal in rounds)
  if options.json:
    output.print_json({'same': same, 'rounds': [
        {'round': number, 'updates': count, 'same': equal} for number, count, equal in rounds]})
  else:
    for number, count, equal in rounds:
      print(f'round {number}: {count} updates, {"the same model" if equal else "ANOTHER MODEL"}')
    print(f'{len(rounds)} rounds: ' + ('the same, bit for bit.' if same else 'not the same.'))
  return 0 if same else 1
