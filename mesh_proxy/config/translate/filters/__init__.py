"""Translations of Envoy's HTTP filters, one module each; importing a module registers its filter (`config/registry.py`)."""
