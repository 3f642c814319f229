"""A model's history as messages, and the cheapest way to the present. NumPy only."""
