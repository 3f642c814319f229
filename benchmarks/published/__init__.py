"""Results that papers report, measured here."""
