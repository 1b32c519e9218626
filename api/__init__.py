"""The outer layer of feedrank: config, composition root, readers, HTTP service, client and command line."""
