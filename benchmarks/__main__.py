"""Command line of the benchmarks."""

import argparse
import subprocess
import sys

from benchmarks.lib import harness


def main(arguments=None):
  found = harness.benchmarks()
  listed = []
  for folder, about in harness.folders().items():
    listed += [f'{folder}: {about}', *(f'  {name:20} {benchmark.summary}' for name, benchmark in found.items()
                                       if benchmark.folder == folder), '']
  parser = argparse.ArgumentParser(prog='python -m benchmarks', formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description='Runs benchmarks, prints tables, writes benchmarks/results/NAME.json.',
                                   epilog='\n'.join(listed))
  parser.add_argument('names', nargs='*', metavar='NAME', help='which; all without a name')
  parser.add_argument('--quick', action='store_true', help='seconds instead of minutes; writes to results/quick/')
  parser.add_argument('--in-process', action='store_true', help=argparse.SUPPRESS)
  options = parser.parse_args(arguments)
  for name in options.names:
    if name not in found:
      parser.error(f'there is no benchmark {name[:60]!r}; there are {", ".join(found)}.')
  if options.in_process:
    for name in options.names:
      harness.execute(found[name], options.quick)
    return 0
  failed = []
  for name in options.names or found:
    print(f'\n# {name}: {found[name].summary}', flush=True)
    command = [sys.executable, '-m', 'benchmarks', name, '--in-process'] + ['--quick'] * options.quick
    if subprocess.run(command, env=found[name].environment, check=False).returncode:
      failed.append(name)
  if failed:
    print(f'failed: {", ".join(failed)}', file=sys.stderr)
  return bool(failed)


if __name__ == '__main__':
  sys.exit(main())
