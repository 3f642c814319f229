"""The way down: the model as a whole, parts of it, or what changed in it."""
