"""What clients and the server remember of updates: one file for each kind of memory."""
