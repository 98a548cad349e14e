"""Serves a listing: see `tests.endpoints.listing`."""

from tests.endpoints.listing import main

main()
