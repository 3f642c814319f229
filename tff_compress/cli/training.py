"""`tff-compress run`, `compare` and `demo`: training. What is shown of it is in progress.py and reports.py."""

import contextlib
import dataclasses
import os

from tff_compress.cli import autoencoders
from tff_compress.cli import extras
from tff_compress.cli import reports
from tff_compress.cli.progress import Progress
from tff_compress.runtime.errors import NotMergeableError
from tff_compress.simulation import config as config_lib
from tff_compress.simulation import datasets
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import models as models_lib
from tff_compress.simulation import run as run_lib
from tff_compress.simulation.report.formats import counted
from tff_compress.simulation.report.runs import FLOAT32

# What `demo` trains: small enough for two cores and three minutes, TFF's import included.
DEMO = {'dataset': 'digits', 'model': 'digits_cnn', 'split': 'dirichlet:0.5', 'clients': 20, 'clients_per_round': 10,
        'rounds': 20, 'local_epochs': 2, 'batch_size': 10, 'client_learning_rate': 0.05}
DEMO_LINKS = (('float32', 'float32'), ('int8', 'int8'), ('rotated-ternary', 'int8'), ('shared-mask', 'int8'))

_CODEC = "a codec: stages such as 'hadamard | uniform:bits=2 | pack', or a preset such as int8; float32: as it is"
_UPLINK = (f"{_CODEC}; or a method such as dgc:p=1/100; or a schedule, 'CODEC @5 CODEC', of which the second is used "
           f'after 5 rounds; also {" or ".join(run_lib.BASELINES)}')
_DOWNLINK = 'a codec for the model on its way to the clients (that of the method, or float32)'

_FLAGS = (
    ('data', (
        ('dataset', ', '.join(datasets.names())),
        ('data_dir', 'what to read: ' + '; '.join(f'{name}: {source.files}' for name, source in datasets.SOURCES.items()
                                                  if source.files)),
        *((name, '; '.join(f'{owner}: {field.metadata["help"]}' for owner, field in owners.items()))
          for name, owners in datasets.options().items()),
        ('split', 'how examples are dealt out: iid, dirichlet:ALPHA, shards:N, table or natural'),
        ('clients', 'how many clients there are; none: as many as a natural split has'),
    )),
    ('training', (
        ('model', ', '.join(models_lib.names())),
        ('dropout', 'with the dropout layers of a model that has them'),
        ('rounds', 'how many rounds'),
        ('clients_per_round', 'how many clients train in a round'),
        ('algorithm', f'{" or ".join(run_lib.ALGORITHMS)}'),
        ('proximal_strength', 'the mu of fedprox'),
        ('local_epochs', "passes over a client's examples in a round"),
        ('local_steps', 'batches that a client trains on in a round, in place of local epochs (communication delay)'),
        ('batch_size', 'examples per local step'),
        ('client_learning_rate', "learning rate of the clients' SGD"),
        ('client_momentum', "momentum of the clients' SGD"),
        ('server_optimizer', f'{", ".join(run_lib.SERVER_OPTIMIZERS)}'),
        ('server_learning_rate', 'learning rate of the server'),
        ('server_momentum', "momentum of the server's SGD"),
        ('error_feedback', 'clients remember what the uplink loses, and send it later; none: where it is meant'),
        ('feedback_momentum', 'momentum of the feedback; 0: none'),
        ('feedback_decay', 'factor of what clients remember, for each round that they missed'),
        ('feedback_drop_after', 'clients that missed more rounds than this start anew; none: never'),
        ('downlink_changes', 'the downlink sends what changed, and clients keep a copy; none: where it is meant'),
        ('downlink_since', 'last: all changes that a client missed; start: one with all; none: as it is meant'),
        ('state_clients', 'at most this many clients are remembered; none: no limit'),
        ('state_bytes', 'what is remembered takes at most this many bytes; none: no limit'),
        ('weighting', 'examples: clients count by their examples; uniform: all the same; none: as the method has it'),
        ('ema', 'factor of a moving average of the weights, which is then what is evaluated; none: no average'),
        ('seed', 'where the split, the initial weights, the draw of clients and the codecs take their randomness from'),
    )),
    ('running', (
        ('evaluate_every', 'rounds between evaluations'),
        ('evaluation_examples', 'evaluate on this many test examples; none: all'),
        ('checkpoint_every', 'rounds between checkpoints; none: one every ten seconds'),
        ('workers', 'local TFF workers that a round is split over'),
    )),
)


def add_run(parser):
  """Gives the parser of `run` its options."""
  parser.set_defaults(function=_run)
  parser.description = (
      'Train once, with one uplink and one downlink. All settings may stand in a YAML file; flags come '
      'first.')
  parser.epilog = """\
      examples:
        tff-compress run --uplink int8 --downlink int8 --output runs/int8
        tff-compress run --uplink stc:p=1/100 --downlink stc:p=1/100
        tff-compress run --uplink dgc --local-steps 5
        tff-compress run --config run.yaml --rounds 5
      run.yaml:
        dataset: fashion-mnist
        model: small_cnn
        uplink: hadamard | uniform:bits=2 | pack"""
  parser.add_argument('--uplink', metavar='CODEC', help=f'{_UPLINK} (float32)')
  parser.add_argument('--downlink', metavar='CODEC', help=_DOWNLINK)
  _add_settings(parser)
  parser.add_argument('--output', metavar='DIR',
                      help='folder for results, checkpoints and the report; a run that is there is gone on with')


def add_compare(parser):
  """Gives the parser of `compare` its options."""
  parser.set_defaults(function=_compare)
  parser.description = (
      'Train with several codecs, side by side: the same clients, data, initial weights and draws. Ends '
      'in a table, plots and a page.')
  parser.epilog = """\
      --downlink is given once for all uplinks, or as often as --uplink: then they belong together, in order.
      float32 in both directions is added where it is missing, as what the others are compared with.

      examples:
        tff-compress compare --uplink int8 --uplink drive --uplink sketch --seeds 3
        tff-compress compare --uplink int8 --uplink tff:compression_aggregator --downlink float32"""
  parser.add_argument('--uplink', metavar='CODEC', action='append',
                      help=f'{_UPLINK}; repeat it for each')
  parser.add_argument('--downlink', metavar='CODEC', action='append', help=_DOWNLINK)
  parser.add_argument('--seeds', metavar='N', help='train with this many seeds, counted from --seed (1)')
  _add_settings(parser)
  parser.add_argument('--output', metavar='DIR',
                      help='folder for results, checkpoints, plots and report.html (comparison)')


def add_demo(parser):
  """Gives the parser of `demo` its options."""
  parser.set_defaults(function=_demo)
  parser.description = (f'Train {DEMO["model"]} on {DEMO["dataset"]}, with float32 and with three codecs, both up and '
                        'down. Takes one to two minutes.')
  parser.add_argument('--output', metavar='DIR', default='demo-report', help='folder for the report (demo-report)')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _add_settings(parser):
  settings = config_lib.settings()
  parser.usage = f'{parser.prog} [options]'  # All of them are listed below it.
  parser.add_argument('--config', metavar='FILE', help='YAML file of settings: names as the flags, with _ for -')
  for title, flags in _FLAGS:
    group = parser.add_argument_group(title)
    for name, text in flags:
      setting = settings[name]
      shown = str(setting.default).lower() if setting.kind is bool or setting.default is None else setting.default
      # A flag that may be true or false is true where nothing is said.
      bare = {'nargs': '?', 'const': 'true'} if setting.kind is bool else {}
      group.add_argument(setting.flag, dest=name, **bare, help=f'{text} ({shown})'.replace('%', '%%'),
                         metavar={int: 'N', float: 'X', bool: 'true|false', str: 'TEXT'}[setting.kind])
  autoencoders.add_option(parser)
  group = parser.add_argument_group('output')
  group.add_argument('--restart', action='store_true', help='begin again where the folder holds a part of this run')
  group.add_argument('--json', action='store_true', help='print JSON, and progress on standard error')


def _values(options, lists=()):
  """{setting name: value} of the YAML file and the flags, which win. Autoencoders that codecs may name are loaded."""
  autoencoders.load(options)
  settings = config_lib.settings()
  known = dict(settings)
  if 'seeds' in vars(options):
    known['seeds'] = _SEEDS
  values = {} if options.config is None else config_lib.load_yaml(options.config, known, lists)
  # In errors, what the file has keeps the name that it has there.
  options.flags = {name: flag for name, flag in options.flags.items()
                   if name not in values or getattr(options, name) is not None}
  for name, setting in known.items():
    given = getattr(options, name, None)
    if isinstance(given, list):
      values[name] = [setting.parse(text, setting.flag) for text in given]
    elif given is not None:
      values[name] = setting.parse(given, setting.flag)
  if values.get('workers') == 0:
    raise config_lib.ConfigError('workers must be a whole number from 1 to 256: a command has no TFF context but its '
                                 'own.')
  return values


_SEEDS = config_lib.Setting('seeds', int, False, 1)


def _run(options):
  values = _values(options)
  config = config_lib.make(values)
  if config.output is not None:
    extras.need('plots', *extras.EXTRAS['plots'])  # Before it trains, and not when the report is made.
  with _training([config], options) as train:
    result, = train()
  details = {'config': config.as_dict(), 'status': result.status, 'parameters': result.parameters,
             'rounds': result.rounds}
  reports.finish([result], config.output, options, details)


def _compare(options):
  values = _values(options, lists=('uplink', 'downlink'))
  seeds = values.pop('seeds', 1)
  if not 1 <= seeds <= _MAX_SEEDS:
    raise config_lib.ConfigError(f'seeds must be a whole number from 1 to {_MAX_SEEDS}, not {config_lib.shown(seeds)}.')
  uplinks, downlinks = (values.pop(name, []) for name in ('uplink', 'downlink'))
  uplinks, downlinks = ([value] if isinstance(value, str) else value for value in (uplinks, downlinks))
  values.setdefault('output', 'comparison')
  config = config_lib.make(values)
  configs = _variants(config, _pairs(uplinks, downlinks), seeds)
  with _training(configs, options) as train:
    results = train()
  reports.finish(results, config.output, options)


def _demo(options):
  config = config_lib.make({**DEMO, 'output': options.output})
  configs = _variants(config, DEMO_LINKS, 1)
  with _training(configs, options, resumes=False) as train:
    results = train()
  reports.finish(results, config.output, options)


_MAX_SEEDS = 1000


def _pairs(uplinks, downlinks):
  """[(uplink, downlink)] of what was given, with float32 in both directions first if it is missing."""
  if not uplinks:
    raise config_lib.ConfigError('compare needs at least one --uplink, such as --uplink int8.')
  downlinks = downlinks or [None]  # What belongs to the uplink: float32, but for some methods.
  if len(downlinks) == 1:
    downlinks = downlinks * len(uplinks)
  if len(downlinks) != len(uplinks):
    raise config_lib.ConfigError(f'there are {counted(len(uplinks), "uplink")} and '
                                 f'{counted(len(downlinks), "downlink")}: give --downlink once, or once for '
                                 'each --uplink.')
  pairs = list(dict.fromkeys(zip(uplinks, downlinks)))
  if not any(up in FLOAT32 and down in (None, *FLOAT32) for up, down in pairs):
    pairs.insert(0, ('float32', 'float32'))
  return pairs


def _variants(config, pairs, seeds):
  """A `RunConfig` per seed and pair, each with a folder of its own."""
  configs = []
  for seed in range(config.seed, config.seed + seeds):
    seeded = dataclasses.replace(config, seed=seed, output=os.path.join(config.output, f'seed-{seed}'))
    configs += run_lib.variants(seeded, pairs)
  return configs


@contextlib.contextmanager
def _training(configs, options, resumes=True):
  """A block that can train the configurations: gives a function without arguments that returns their `RunResult`s.

  `resumes` says whether the command goes on with what is in the output folder.
  """
  progress = Progress(configs, every=0.0 if len(configs) == 1 else 10.0)

  def train():
    return run_lib.compare(configs, on_round=progress.round, on_prepass=progress.prepass,
                           resume=resumes and not options.restart)

  try:
    with progress:
      yield train
  except NotMergeableError as error:
    what = configs[0].uplink if len(configs) == 1 else 'one of the uplinks'
    raise config_lib.ConfigError(f'{what}: {error}') from error
  except KeyboardInterrupt:
    hint = ''
    if resumes and configs[0].output is None:
      hint = ' With --output DIR, a run that was stopped can go on.'
    elif resumes and any(folder_lib.goes_on(config.output) for config in configs):
      hint = f' The same command{" without --restart" if options.restart else ""} goes on from there.'
    elif resumes:
      hint = ' There is no checkpoint yet: the same command begins again.'
    raise KeyboardInterrupt('Stopped.' + hint) from None
