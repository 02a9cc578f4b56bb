"""What a person sees: the terminal, a figure, one HTML page."""
