"""Who may attend to whom: runs of keys, one file per family of masks, and readers of the masks of others."""
