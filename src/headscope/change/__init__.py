"""What happens without a head, or with another one in its place."""
