"""What is stored of clients between rounds, and where."""
