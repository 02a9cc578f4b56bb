"""The metrics of the field, by the libraries that the field keeps for them."""
