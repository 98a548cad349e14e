"""S3 endpoints for tests: real HTTP servers on loopback that count, that fail, that list a lot.

FaultyProxy     stands before another endpoint and spoils answers, at a rate and with a seed
CountingProxy   the same, and spoils nothing: which object was fetched how often
PagedListing    a bucket of any number of keys, without bodies, in a process of its own
"""

from tests.endpoints.listing import PagedListing
from tests.endpoints.proxy import CountingProxy, FaultyProxy

__all__ = ["CountingProxy", "FaultyProxy", "PagedListing"]
