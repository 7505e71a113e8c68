"""A producer that is not ours sends what is no command: it ends as a dead letter, and stops nobody.

Run against a pipeline (`orderflow up`); docs/DEAD_LETTERS.md goes on from here.
"""

import sys
import time

from confluent_kafka import Producer

from orderflow.dead_letters import Desk
from orderflow.servers import located
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

WITHIN_S = 60.0

settings = located(Settings())
producer = Producer(kafka.producer(settings))
producer.produce(topics_of(settings).commands("user"), key=b"ada", value=b"no json")
producer.flush()
desk, deadline = Desk(settings), time.monotonic() + WITHIN_S
while not desk.letters():
    if time.monotonic() > deadline:
        sys.exit("no processor has read it; is the pipeline running?")
    time.sleep(0.2)
print("sent b'no json' to user ada")
