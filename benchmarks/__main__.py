"""Command line of the benchmarks."""

import argparse
import subprocess
import sys

from benchmarks import harness


def main(arguments=None):
  found = harness.benchmarks()
  parser = argparse.ArgumentParser(prog='python -m benchmarks', formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description='Runs benchmarks, prints tables, writes benchmarks/results/NAME.json.',
                                   epilog='\n'.join(f'{name:20} {summary}' for name, summary in found.items()))
  parser.add_argument('names', nargs='*', metavar='NAME', help='which; all without a name')
  parser.add_argument('--quick', action='store_true', help='seconds instead of minutes; writes to results/quick/')
  parser.add_argument('--in-process', action='store_true', help=argparse.SUPPRESS)
  options = parser.parse_args(arguments)
  for name in options.names:
    if name not in found:
      parser.error(f'there is no benchmark {name[:60]!r}; there are {", ".join(found)}.')
  if options.in_process:
    for name in options.names:
      harness.execute(name, options.quick)
    return 0
  failed = []
  for name in options.names or found:
    print(f'\n# {name}: {found[name]}', flush=True)
    command = [sys.executable, '-m', 'benchmarks', name, '--in-process'] + ['--quick'] * options.quick
    if subprocess.run(command, env=harness.environment(name), check=False).returncode:
      failed.append(name)
  if failed:
    print(f'failed: {", ".join(failed)}', file=sys.stderr)
  return bool(failed)


if __name__ == '__main__':
  sys.exit(main())
