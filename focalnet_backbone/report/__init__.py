"""Pages to look at, each one file that needs no network and no server."""
