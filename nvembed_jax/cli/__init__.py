"""The command line: one small file a command; each parses, imports lazily and calls the library."""
