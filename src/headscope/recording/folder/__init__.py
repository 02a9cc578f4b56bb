"""The recording on disk."""
