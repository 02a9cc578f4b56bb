"""What one head of a real model does with a text, step by step: for a terminal, for a page, or as data."""
