"""What a call of attention is, and one file for each place where attention is called."""
