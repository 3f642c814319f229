"""What a round takes in TFF: seconds, memory, and the states of clients."""
