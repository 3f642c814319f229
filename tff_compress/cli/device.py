"""`tff-compress device`: a device in Python. It loads no TensorFlow."""

import argparse
import os
import re

from tff_compress.cli import arguments
from tff_compress.cli import output


def add_device(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `device` its options."""
  parser.set_defaults(function=_device)
  parser.description = (
      'Take part in the training of a server, as a phone does: fetch the plan, train in LiteRT, send compressed '
      'updates. A device that was stopped goes on with the same command.')
  parser.epilog = """\
      example:
        tff-compress device http://127.0.0.1:8080 --code ABCD-EFGH-JKLM --data digits:client=3,of=20"""
  parser.add_argument('url', metavar='URL', help='address of the server; without TLS only on this machine')
  parser.add_argument('--data', metavar='TEXT', required=True,
                      help='examples: a data set, which client of how many this is, and how they are split, as in '
                      'digits:client=3,of=20,split=iid,seed=0')
  parser.add_argument('--code', metavar='CODE', help='enrolment code, which the server printed; once is enough')
  parser.add_argument('--state', metavar='DIR',
                      help='folder of what the device keeps (device-, and what --data is)')
  parser.add_argument('--rounds', metavar='N', type=arguments.whole_number(1, 10**6),
                      help='stop after so many updates were counted (when the server is finished)')
  parser.add_argument('--patience', metavar='SECONDS', type=arguments.number(least=0, most=10**7), default=600.0,
                      help='give up where the server does not answer for so long (600)')


def _device(options: argparse.Namespace) -> None:
  from tff_compress.device import client
  from tff_compress.device import data
  from tff_compress.device import http
  from tff_compress.device import keeping
  session = http.Session(options.url, options.patience)
  x, y = data.load(options.data)
  folder = options.state or 'device-' + re.sub('[^A-Za-z0-9.=]+', '-', options.data)
  output.say(f'{len(x)} examples; state in {output.printable(os.path.abspath(folder))}')
  counted = client.Device(session, keeping.Keeping(folder), x, y, options.code,
                          say=lambda text: output.say(output.printable(text))).run(options.rounds)
  print(f'{counted} updates were counted.')
