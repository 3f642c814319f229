"""When an autoencoder pays: its decoder is sent once, and every message after it is smaller.

Source: Chandar et al. 2021, "Communication optimization in large scale federated learning using autoencoder compressed
weight updates", equations 4-6, which count values (of 4 bytes). The functions take any unit, as long as it is the same
for all.
"""


def dense_parameters(values, latent):
  """Parameters of the published autoencoder d - z - d, with biases: 2 d z + z + d."""
  return 2 * values * latent + latent + values


def decoder_parameters(values, latent):
  """Parameters of its decoder: d z + d. The paper counts half of the autoencoder's, which is less by (d - z) / 2."""
  return values * latent + values


def savings_ratio(plain, sent, messages, cost):
  """What all messages would take over what they take (equation 4): plain * messages / (sent * messages + cost).

  Args:
    plain: size of a message without the autoencoder.
    sent: size of one with it.
    messages: their number, rounds times clients.
    cost: size of all that was sent for the autoencoder itself, once: decoders times the size of one (equations 5 and
      6).
  """
  return plain * messages / (sent * messages + cost)


def break_even(plain, sent, cost):
  """How many messages it takes until the autoencoder has saved what it cost: cost / (plain - sent). Infinite if it never does."""
  return cost / (plain - sent) if plain > sent else float('inf')
