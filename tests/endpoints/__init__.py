"""S3 endpoints for tests: real HTTP servers on loopback that count, that fail, that list a lot.

FaultyProxy     stands before another endpoint and spoils answers, at a rate and with a seed
CountingProxy   the same, and spoils nothing: which object was fetched how often
PeculiarStore   the same, and has the ways of some stores and buckets: what they refuse or ignore
PagedListing    a bucket of any number of keys, without bodies, in a process of its own
moto_server     a whole S3, empty at first, in a process of its own
"""

from tests.endpoints.listing import PagedListing
from tests.endpoints.moto import moto_server
from tests.endpoints.proxy import CountingProxy, FaultyProxy
from tests.endpoints.stores import PeculiarStore

__all__ = ["CountingProxy", "FaultyProxy", "PagedListing", "PeculiarStore", "moto_server"]
