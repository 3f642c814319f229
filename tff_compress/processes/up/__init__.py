"""The way up: codecs that change with the round, their messages, and who uploads."""
