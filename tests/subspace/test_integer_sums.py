"""Integer sums: what a server needs is the sum of whole numbers, and their scale comes right by itself."""

import dataclasses

import numpy as np
import pytest

from tff_compress import codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace import integer_sums
from tff_compress.subspace import whole_numbers
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.forms import form_of
from tff_compress.subspace.integer_sums import IntegerSums
from tff_compress.subspace.private_sums import PrivateSums
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.server import Server
from tff_compress.subspace.session import Session
from tff_compress.timeline.copy import Copy

SIZE, SEED, SUMS = 3072, 11, IntegerSums()
BITS = range(2, 9)


def vector(seed=0):
  return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def server_of(form='round', bits=4):
  spec, float32 = Spec.of({'w': np.zeros([48, 64], np.float32)}), codec('float32')
  session = Session(SIZE, SEED, Rate(noise=None, first=0.2, floor=256), 0.0, NumpyRuntime(spec, SEED, float32, float32),
                    SUMS)
  return Server.begin(session, vector(), bits=bits, form=form_of(form))


def uploads(server, updates):
  """{client: message}"""
  return {client: server.session.upload(xp, server.copy, update, np.int32(client))
          for client, update in updates.items()}


def after_round(server, updates, bits):
  session = server.session
  total = sum(server.read(bytes(message), client) for client, message in uploads(server, updates).items())
  weight = np.float32(len(updates))
  return server.after(session.sums.mean(xp, server.copy, total, weight), next_bits=bits,
                      next_scale=session.next_scale(xp, server.copy, total, weight, bits))


def normal(count, deviation=1.0, seed=0):
  return (deviation * np.random.default_rng(seed).normal(size=count)).astype(np.float32)


def scaled_for(deviation, bits):
  """A copy whose scale is for coordinates of this root mean square."""
  limit = 2**(bits - 1) - 1
  return {'bits': np.int32(bits), 'scale': np.float32(deviation * integer_sums.SPANS[bits] / limit)}


@pytest.mark.parametrize('bits', BITS)
def test_the_sum_of_the_numbers_gives_the_mean_of_what_messages_decode_to(bits):
  server = server_of(bits=bits)
  messages = uploads(server, {client: 0.1 * vector(client) for client in range(7)})
  found = [server.read(bytes(message), client) for client, message in messages.items()]
  one = np.float32(1)
  each = [SUMS.mean(xp, server.copy, numbers, one) for numbers in found]
  total = np.sum(found, 0)
  assert total.dtype.kind == 'i' and np.max(np.abs(found)[:, :-1]) <= 2**(bits - 1) - 1
  np.testing.assert_allclose(SUMS.mean(xp, server.copy, total, np.float32(7)), np.mean(each, 0), rtol=1e-5, atol=1e-9)
  # Also where the sums are known only modulo a power of two, as where masks are added to the messages.
  of_numbers, of_energy = integer_sums.modulus_bits(bits, 7)
  limit = 2**(bits - 1) - 1
  wrapped = sum((numbers[:-1] + limit) % 2**of_numbers for numbers in found) % 2**of_numbers
  np.testing.assert_array_equal(wrapped - 7 * limit, total[:-1])
  assert sum(int(numbers[-1]) for numbers in found) % 2**of_energy == total[-1]


@pytest.mark.parametrize('clients', [1, 10, 1000])
@pytest.mark.parametrize('bits', BITS)
def test_the_bits_of_a_modulus_are_enough_and_no_more(bits, clients):
  most, (of_numbers, of_energy) = 2 * (2**(bits - 1) - 1) * clients, integer_sums.modulus_bits(bits, clients)
  assert 2**(of_numbers - 1) <= most < 2**of_numbers
  assert 2**(of_energy - 1) <= 65535 * clients < 2**of_energy


@pytest.mark.parametrize('bits', BITS)
def test_error_is_as_stated_and_falls_with_the_number_of_clients(bits):
  space, copy, values = Coordinates(1 << 16), scaled_for(0.01, bits), normal(1 << 16, 0.01)
  errors = []
  for clients in (1, 10):
    total = sum(SUMS.decode(xp, space, None, values.size, bits,
                            SUMS.encode(xp, space, MessageKeys(1, 0, client), copy, values, values.size))
                for client in range(clients))
    off = SUMS.mean(xp, copy, total, np.float32(clients)) - values
    errors.append(np.sum(np.square(off, dtype=np.float64)) / np.sum(np.square(values, dtype=np.float64)))
  assert errors[0] == pytest.approx(integer_sums.DISTORTION[bits], rel=0.05)
  assert errors[1] < 0.13 * errors[0]


def test_rounding_is_right_on_average():
  space, copy = Coordinates(4096), scaled_for(1.0, 3)
  values = np.linspace(-2.7, 2.7, 4096, dtype=np.float32)
  rounded = [SUMS.decode(xp, space, None, values.size, 3,
                         SUMS.encode(xp, space, MessageKeys(1, 0, client), copy, values, values.size))
             for client in range(400)]
  mean = np.mean(rounded, 0)[:-1] * copy['scale']
  # A number is off by half a scale at most in its deviation.
  assert np.max(np.abs(mean - values)) < 5 * 0.5 * copy['scale'] / np.sqrt(400)


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('times', [1e-3, 1.0, 1e4])
def test_the_scale_comes_right_within_a_few_rounds_of_any_guess(times, bits):
  space, copy = Coordinates(4096), scaled_for(1.0, bits)
  deviations = []
  for number in range(4):
    values = [normal(4096, times, (number, client)) for client in range(10)]
    total = sum(SUMS.decode(xp, space, None, 4096, bits,
                            SUMS.encode(xp, space, MessageKeys(1, number, client), copy, x, 4096))
                for client, x in enumerate(values))
    copy['scale'] = SUMS.following_scale(xp, copy, total, np.float32(10), np.int32(bits))
    deviations.append(copy['scale'] / scaled_for(times, bits)['scale'])
  assert deviations[-1] == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize('form', ['round', 'fixed', 'auto'])
def test_everybody_has_the_same_model_and_scale(form):
  server, often, late, goal = server_of(form), None, None, vector(1)
  often = Copy(server.session)
  for number in range(6):
    often = often.follow(server.timeline.way(often.version))
    present = often.present
    np.testing.assert_array_equal(present['model'], server.copy['model'])
    assert (present['scale'], present['bits']) == (server.copy['scale'], server.copy['bits'])
    bits = 2 + number
    updates = {client: (0.05 * (server.copy['model'] - goal) + 0.01 * vector((number, client))).astype(np.float32)
               for client in range(5)}
    server = after_round(server, updates, bits)
  late = Copy(server.session).follow(server.timeline.way())
  np.testing.assert_array_equal(late.present['model'], server.copy['model'])
  assert late.present['scale'] == server.copy['scale'] > 0
  assert server.session.upload(xp, late.present, goal, 3)[0] == 7
  kept = Copy.from_bytes(server.session, often.to_bytes())
  assert kept.held['scale'] == often.held['scale']


def test_runs_of_integer_and_private_sums_are_told_apart():
  session = server_of().session
  assert session.fingerprint != dataclasses.replace(session, sums=PrivateSums()).fingerprint


@pytest.mark.parametrize('weights', [0.0, 1e-30, 1.0])
def test_the_first_scale_is_a_number_whatever_the_first_weights(weights):
  space = Coordinates(SIZE)
  scale = SUMS.first_scale(xp, space, np.float64(SIZE * weights**2), np.int32(4))
  expected = 0.1 * max(weights, 1e-3) * integer_sums.SPANS[4] / 7
  assert scale == pytest.approx(expected, rel=0.01)


def test_messages_of_no_client_are_refused():
  server = server_of(bits=4)
  message = uploads(server, {1: 0.1 * vector(1)})[1]
  with pytest.raises(PayloadError, match='round or client'):
    server.read(bytes(message), 2)
  kept = server.session.kept(xp, server.copy)
  body = np.array(message[1:-4])
  with pytest.raises(PayloadError, match='larger'):
    SUMS.decode(xp, server.session.space, None, kept, 4, np.concatenate([body[:2], np.full(kept // 2, 255, np.uint8)]))
  for bits, harmed in ((1, body), (9, body), (4, body[:1]), (4, body[:-1])):
    with pytest.raises(PayloadError):
      SUMS.decode(xp, server.session.space, None, kept, bits, harmed)


def test_a_record_with_a_scale_that_no_server_says_is_refused():
  server = server_of()
  session, mean = server.session, np.ones(server.session.kept(xp, server.copy), np.float32)
  record = np.array(session.change(xp, server.copy, mean, learning_rate=np.float32(1), bits=1, next_bits=4,
                                   key_frame=False))
  for scale in (b'\0\0', b'\xff\x7f', b'\0\xbf'):
    record[3:5] = np.frombuffer(scale, np.uint8)
    with pytest.raises(PayloadError, match='scale'):
      session.move(xp, server.copy, record)


@pytest.mark.parametrize('bits', BITS)
def test_whole_numbers_survive_packing(bits):
  limit = 2**(bits - 1) - 1
  numbers = np.random.default_rng(bits).integers(-limit, limit + 1, 1001).astype(np.int32)
  packed = whole_numbers.pack(xp, numbers, bits)
  assert packed.size == whole_numbers.size(1001, bits)
  np.testing.assert_array_equal(whole_numbers.unpack(xp, packed, 1001, bits), numbers)
