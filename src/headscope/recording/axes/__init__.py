"""What the positions of a recording are: tokens, patches, frames."""
