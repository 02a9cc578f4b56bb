"""What a model is trained for: one file for each task, and one tuple that lists them."""
