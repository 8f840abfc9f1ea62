"""Tests of serving, which have an environment of their own: `make serve-test`."""
