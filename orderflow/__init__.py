"""The composition root: command line, shop, roles. Imports all, imported by none."""
