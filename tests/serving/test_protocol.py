"""Messages and states of the protocol, without any I/O."""

import json

import hypothesis
from hypothesis import strategies as st
import pytest

from tff_compress.serving import messages
from tff_compress.serving import protocol

EXAMPLES = {
    'Enrolment': protocol.Enrolment(code='ABCD-1234'),
    'Renewal': protocol.Renewal(refresh='r' * 32),
    'Tokens': protocol.Tokens(device='0' * 16, access='a' * 32, refresh='b' * 32, seconds=60.0),
    'CheckIn': protocol.CheckIn(runtime='2.14.0', plan='0' * 64, version=3, digest='00ff00ff', memory=1 << 30),
    'Item': protocol.Item(role='plan', sha256='1' * 64, bytes=10),
    'Assignment': protocol.Assignment(
        task='0' * 16, round=1, client=2, seed='f' * 16, plan='2' * 64, version=0,
        fetch=(protocol.Item(role='model', sha256='1' * 64, bytes=10),), fingerprint='01020304', epochs=1,
        weighting=protocol.Weighting.UNIFORM,
        learning_rate=0.5, lease='l' * 32, seconds=600.0, upload='/v1/uploads/' + 'l' * 32),
    'ComeBack': protocol.ComeBack(not_before=1.0, not_after=3.0),
    'CannotTakePart': protocol.CannotTakePart(reason=protocol.Refusal.FINISHED),
    'Receipt': protocol.Receipt(task='0' * 16, round=1, client=2, outcome=protocol.Outcome.REJECTED,
                                reason=protocol.Rejection.UNREADABLE, number=None, sha256='3' * 64),
    'Report': protocol.Report(event=protocol.Event.MEASURED, loss=0.25, examples=10),
    'Problem': protocol.Problem(type='about:blank', title='No.', status=404),
}


@pytest.mark.parametrize('kind', protocol.MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_is_read_as_it_was_written(kind):
  message = EXAMPLES[kind.__name__]
  assert kind.read(message.to_bytes()) == message
  assert kind.read(json.dumps({**message.as_dict(), 'later': [1]}).encode()) == message  # Of a later release.


@pytest.mark.parametrize('kind', protocol.MESSAGES, ids=lambda kind: kind.__name__)
def test_the_schema_takes_what_is_written_and_no_field_may_be_just_anything(kind):
  import jsonschema
  whole = EXAMPLES[kind.__name__].as_dict()
  validator = jsonschema.Draft202012Validator(kind.schema())
  validator.validate(whole)
  for name in whole:
    for wrong in (None, [], {}, -5, 1e400, 'ü\n', True):
      value = {**whole, name: wrong}
      try:
        kind.of(value)
      except messages.MessageError as error:
        assert '\n' not in str(error)
      else:
        assert validator.is_valid(value)


@hypothesis.given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(['kind', 'round', 'fetch']) | st.text(), inner),
    max_leaves=20).map(lambda value: json.dumps(value).encode()))
def test_whatever_is_received_is_a_message_or_a_sentence(data):
  for kind in protocol.MESSAGES:
    with pytest.raises(messages.MessageError) as error:
      kind.read(data)
      raise messages.MessageError('a message')  # Which it may be.
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('data', [b'[' * 60000, b'{"code": NaN}', b'{"code": 1e999}', b'9' * 5000, b'\xff',
                                  b'x' * 70000])
def test_json_that_is_meant_to_hurt_is_refused(data):
  with pytest.raises(messages.MessageError):
    protocol.Enrolment.read(data)


def test_an_answer_is_told_by_its_kind():
  for name in ('Assignment', 'ComeBack', 'CannotTakePart'):
    assert protocol.answer(EXAMPLES[name].to_bytes()) == EXAMPLES[name]
  with pytest.raises(messages.MessageError, match='does not know'):
    protocol.answer(b'{"kind": "dance"}')


@pytest.mark.parametrize('machine', protocol.MACHINES, ids=lambda machine: machine.name)
def test_every_state_can_be_reached_and_every_step_leads_to_one(machine):
  reached, todo = set(), [machine.start]
  while todo:
    state = todo.pop()
    reached.add(state)
    todo += {after for (before, _), after in machine.steps.items() if before == state} - reached
  assert reached == set(machine.states)
  with pytest.raises(protocol.ProtocolError, match=machine.name):
    machine.after(machine.start, 'explode')


def test_what_is_final():
  assert protocol.TASK.final == {'finished'} and protocol.ROUND.final == {'committed'}
  for event in ('accept', 'goal', 'deadline', 'extend'):
    assert ('closed', event) not in protocol.ROUND.steps and ('committed', event) not in protocol.ROUND.steps
  assert set(protocol.UPLOAD.steps[step] for step in protocol.UPLOAD.steps if step[0] == 'decided') == {'decided'}


def test_every_word_has_a_meaning():
  words = [*protocol.Outcome, *protocol.Rejection, *protocol.Refusal, *protocol.Event, *protocol.Weighting]
  assert set(protocol.MEANING) == set(words)


def test_versions_are_compared_as_numbers():
  assert protocol.newer('2.14.0', '2.9') and not protocol.newer('2.9.0', '2.14') and not protocol.newer('2.9', '2.9.0')
