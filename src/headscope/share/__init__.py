"""One file to send: a page, the recording that it shows, versions, the command that made it, and checksums."""
