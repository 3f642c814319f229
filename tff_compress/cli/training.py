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
from tff_compress.simulation import config_file
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import run as run_lib
from tff_compress.simulation.report import table
from tff_compress.simulation.report.formats import counted
from tff_compress.simulation.report.runs import FLOAT32
from tff_compress.simulation.settings import ConfigError
from tff_compress.simulation.settings import Setting

# What `demo` trains: small enough for two cores and three minutes, TFF's import included.
DEMO = {'dataset': 'digits', 'model': 'digits_cnn', 'split': 'dirichlet:0.5', 'clients': 20, 'clients_per_round': 10,
        'rounds': 20, 'local_epochs': 2, 'batch_size': 10, 'client_learning_rate': 0.05}
DEMO_LINKS = (('float32', 'float32'), ('int8', 'int8'), ('rotated-ternary', 'int8'), ('auto', 'auto'))

_RUN = {
    **config_lib.settings(),
    # A command has no TFF context but its own, which is what 0 stands for in Python.
    'workers': dataclasses.replace(config_lib.settings()['workers'], limits={'least': 1, 'most': 256},
                                   help='local TFF workers that the clients of a round are split over')}
_COMPARE = {
    **_RUN,
    'output': dataclasses.replace(_RUN['output'], optional=False, default='comparison',
                                  help='folder for results, checkpoints, plots and report.html'),
    'seeds': Setting('seeds', int, False, 1, _RUN['seed'].group, 'train with this many seeds, counted from --seed',
                     limits={'least': 1, 'most': 1000})}
_REPEATED = ('uplink', 'downlink')  # By `compare`.


def add_run(parser):
  """Gives the parser of `run` its options."""
  parser.set_defaults(function=_run, sort=table.SORT)  # There is one row.
  parser.description = (
      'Train once, with one uplink and one downlink. Settings may also come from a YAML file, which flags override. '
      'Defaults are in parentheses.')
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
  _add_settings(parser, _RUN)


def add_compare(parser):
  """Gives the parser of `compare` its options."""
  parser.set_defaults(function=_compare)
  parser.description = (
      'Train with several codecs on the same clients, data, initial weights and draws of clients, and compare them in '
      'a table, plots and a page. Defaults are in parentheses.')
  parser.epilog = """\
      Give --downlink once for all uplinks, or once for each: then they are paired in order.
      float32 in both directions is what the others are compared with, and is added where it is missing.

      examples:
        tff-compress compare --uplink int8 --uplink drive --uplink sketch --seeds 3
        tff-compress compare --uplink int8 --uplink tff:compression_aggregator --downlink float32"""
  reports.add_sort(_add_settings(parser, _COMPARE, _REPEATED))


def add_demo(parser):
  """Gives the parser of `demo` its options."""
  parser.set_defaults(function=_demo)
  parser.description = (f'Train {DEMO["model"]} on {DEMO["dataset"]} with float32 and with three codecs, in both '
                        'directions. This takes one to two minutes.')
  parser.add_argument('--output', metavar='DIR', default='demo-report', help='folder for the report (demo-report)')
  reports.add_sort(parser)
  parser.add_argument('--json', action='store_true', help='print JSON')


def _add_settings(parser, settings, repeated=()):
  """Gives a parser a flag for each setting ({name: `Setting`}); `repeated` may be given several times. Returns the
  group of what is not a setting."""
  parser.set_defaults(settings=settings)
  parser.usage = f'{parser.prog} [options]'  # All of them are listed below it.
  parser.add_argument('--config', metavar='FILE',
                      help='YAML file of settings, which are named as the flags are, with _ for -')
  groups = {}
  for name, setting in settings.items():
    if setting.group not in groups:
      groups[setting.group] = parser.add_argument_group(setting.group)
    text, more = setting.flag_help, {}
    if name in repeated:
      text, more = f'{setting.help}; may be given several times', {'action': 'append'}
    elif setting.kind is bool:
      more = {'nargs': '?', 'const': 'true'}  # The bare flag is true.
    groups[setting.group].add_argument(setting.flag, dest=name, help=text.replace('%', '%%'), metavar=setting.metavar,
                                       **more)
  autoencoders.add_option(parser)
  group = parser.add_argument_group('output')
  group.add_argument('--restart', action='store_true',
                     help='discard what the output folder holds of this run, and start over')
  group.add_argument('--json', action='store_true', help='print JSON; progress goes to standard error')
  return group


def _values(options, lists=()):
  """{setting name: value} of the YAML file and the flags, which win. Autoencoders that codecs may name are loaded."""
  autoencoders.load(options)
  values = {} if options.config is None else config_file.load_yaml(options.config, options.settings, lists)
  # In errors, what the file has keeps the name that it has there.
  options.flags = {name: flag for name, flag in options.flags.items()
                   if name not in values or getattr(options, name) is not None}
  for name, setting in options.settings.items():
    given = getattr(options, name, None)
    if isinstance(given, list):
      values[name] = [setting.parse(text, setting.flag) for text in given]
    elif given is not None:
      values[name] = setting.parse(given, setting.flag)
    if name in values and not isinstance(values[name], list):
      values[name] = setting.checked(values[name])
  return values


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
  values = _values(options, lists=_REPEATED)
  seeds = values.pop('seeds', _COMPARE['seeds'].default)
  uplinks, downlinks = (values.pop(name, []) for name in _REPEATED)
  uplinks, downlinks = ([value] if isinstance(value, str) else value for value in (uplinks, downlinks))
  values.setdefault('output', _COMPARE['output'].default)
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


def _pairs(uplinks, downlinks):
  """[(uplink, downlink)] of what was given, with float32 in both directions first if it is missing."""
  uplinks = uplinks or [config_lib.settings()['uplink'].default]
  downlinks = downlinks or [None]  # What belongs to the uplink: float32, but for some methods.
  if len(downlinks) == 1:
    downlinks = downlinks * len(uplinks)
  if len(downlinks) != len(uplinks):
    raise ConfigError(f'there are {counted(len(uplinks), "uplink")} and {counted(len(downlinks), "downlink")}: give '
                      '--downlink once, or once for each --uplink.')
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
    raise ConfigError(f'{what}: {error}') from error
  except KeyboardInterrupt:
    hint = ''
    if resumes and configs[0].output is None:
      hint = ' With --output DIR, a run that was stopped can go on.'
    elif resumes and any(folder_lib.goes_on(config.output) for config in configs):
      hint = f' The same command{" without --restart" if options.restart else ""} goes on from there.'
    elif resumes:
      hint = ' There is no checkpoint yet: the same command begins again.'
    raise KeyboardInterrupt('Stopped.' + hint) from None
