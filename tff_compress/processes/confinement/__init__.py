"""Training that is confined to a part of the model."""
