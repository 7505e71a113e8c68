"""What goes over the wire: ids, money, records, headers, topics, and each aggregate's events and
state.

Pure: nothing here may import Kafka, Redis, Faust or the environment. Everyone may import it: the
write side and the read side share nothing else.
"""
