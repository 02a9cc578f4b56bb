"""The private names of torch and transformers that headscope leans on: looked up and tested for here alone."""
