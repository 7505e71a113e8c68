#!/usr/bin/env bash
# A first order with nothing but kcat: the wire format is all that a producer has to know.
#
#   KAFKA_BOOTSTRAP_SERVERS=localhost:9092 examples/first_order_kcat.sh
#
# A command is a JSON record, its key is the id of the aggregate. The partitioner has to be Kafka's
# murmur2: librdkafka's own default would put the key on another partition, and the command would be
# refused with `wrong_partition`. Needs kcat (Debian and Ubuntu: apt-get install kcat).
set -euo pipefail

brokers="${KAFKA_BOOTSTRAP_SERVERS:?set it to the brokers, e.g. what 'orderflow up' shows}"
prefix="${ORDERFLOW_TOPIC_PREFIX:-orderflow}"
run="${RUN_ID:-$(date +%s)-$$}" # part of every id, so that each run has a new user, item and order

send() { # aggregate, aggregate id, command type, data
	printf '{"type":"%s","command_id":"kcat-%s-%s","data":%s}' "$3" "$run" "$3" "$4" |
		kcat -P -b "$brokers" -t "$prefix.$1.commands" -k "$2" -X partitioner=murmur2_random
	echo "sent $3 to $1 $2"
}

newest() { # topic, text of the key: the newest committed value under it
	kcat -C -b "$brokers" -t "$1" -o -1000 -e -q -X isolation.level=read_committed -f '%k\t%s\n' |
		awk -F '\t' -v key="$2" '$1 == key { value = $2 } END { print value }'
}

outcome() { # aggregate, aggregate id, command type: waits for the outcome, fails on a rejection
	local found=""
	for _ in $(seq 60); do
		found="$(newest "$prefix.$1.outcomes" "$2/kcat-$run-$3")"
		case "$found" in
		*'"status":"accepted"'*) echo "accepted $3" && return ;;
		*'"status":"rejected"'*) echo "rejected $3: $found" >&2 && return 1 ;;
		esac
		sleep 0.5
	done
	echo "no outcome of $3 within 30 s; does a processor run?" >&2
	return 4
}

user="ada-$run" sku="lantern-$run" order="order-$run"
send user "$user" RegisterUser '{"name":"Ada"}'
send inventory "$sku" RegisterItem '{"description":"White metal lantern"}'
send inventory "$sku" ReceiveStock '{"quantity":10}'
send order "$order" CreateOrder \
	"{\"user_id\":\"$user\",\"currency\":\"GBP\",\"lines\":[{\"sku\":\"$sku\",\"quantity\":2,\"unit_price\":339}]}"

outcome user "$user" RegisterUser
outcome inventory "$sku" ReceiveStock
outcome order "$order" CreateOrder

echo "the order as it stands:"
newest "$prefix.order.events" "$order"
