"""The outside: config, composition root, readers, HTTP, command line."""
