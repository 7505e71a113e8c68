import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The processor's comparator in Kafka Streams: order commands in; events with their state, and outcomes, out; the
 * newest event of each order in a persistent store; all of it exactly once.
 *
 * <p>It does less than the processor: no history topic, no memory of command ids (a repeated command is carried out
 * again), no headers, no replies, no parking, no dead letters, no expected versions, and of a command's data it checks
 * quantities and prices only. It has a changelog of its store, which the processor has not: there the events topic is
 * the changelog.
 *
 * <p>Arguments: bootstrap servers, application id, topic of commands, of events, of outcomes, folder for the state.
 */
public final class Orders implements Processor<String, byte[], String, byte[]> {
    record Line(String sku, long quantity, long unit_price) {}

    record Command(String type, String command_id, JsonNode data) {}

    record Order(String user_id, String currency, List<Line> lines) {}

    record State(String status, String user_id, String currency, List<Line> lines, long total, long created_at_ms,
            long updated_at_ms) {}

    record Event(String type, String id, long version, long occurred_at_ms, JsonNode data, State state) {}

    record Outcome(String command_id, String type, String aggregate, String aggregate_id, String status, long version,
            long decided_at_ms, String message) {}

    private static final String STORE = "orders";
    private static final Map<String, Set<String>> MOVES = Map.of(
            "created", Set.of("confirmed", "cancelled"),
            "confirmed", Set.of("shipped", "cancelled"),
            "shipped", Set.of("delivered"),
            "delivered", Set.of(),
            "cancelled", Set.of());
    private static final Map<String, String> STATUS_AFTER = Map.of(
            "ConfirmOrder", "confirmed", "CancelOrder", "cancelled", "ShipOrder", "shipped", "DeliverOrder",
            "delivered");
    private static final Map<String, String> EVENT_OF = Map.of(
            "CreateOrder", "OrderCreated", "ConfirmOrder", "OrderConfirmed", "CancelOrder", "OrderCancelled",
            "ShipOrder", "OrderShipped", "DeliverOrder", "OrderDelivered");

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final ObjectReader COMMAND = JSON.readerFor(Command.class);
    private static final ObjectReader ORDER = JSON.readerFor(Order.class);
    private static final ObjectReader EVENT = JSON.readerFor(Event.class);
    private static final ObjectWriter EVENTS = JSON.writerFor(Event.class);
    private static final ObjectWriter OUTCOMES = JSON.writerFor(Outcome.class);

    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> orders;

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        this.orders = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
        try {
            Command command = COMMAND.readValue(record.value());
            byte[] known = orders.get(record.key());
            Event before = known == null ? null : EVENT.readValue(known);
            String refusal = refusal(command, before);
            long version = before == null ? 0 : before.version;
            if (refusal == null) {
                version++;
                Event event = new Event(EVENT_OF.get(command.type), command.command_id + ":0", version,
                        record.timestamp(), command.data, after(command, before, record.timestamp()));
                byte[] value = EVENTS.writeValueAsBytes(event);
                orders.put(record.key(), value);
                context.forward(record.withValue(value), "events");
            }
            Outcome outcome = new Outcome(command.command_id, command.type, "order", record.key(),
                    refusal == null ? "accepted" : "rejected", version, record.timestamp(), refusal);
            context.forward(record.withValue(OUTCOMES.writeValueAsBytes(outcome)), "outcomes");
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Why the command is not carried out; null where it is. */
    private static String refusal(Command command, Event before) throws IOException {
        if (command.type.equals("CreateOrder")) {
            if (before != null) {
                return "an order with this id exists already";
            }
            Order order = ORDER.readValue(command.data);
            boolean sound = !order.lines.isEmpty()
                    && order.lines.stream().allMatch(line -> line.quantity > 0 && line.unit_price >= 0);
            return sound ? null : "the lines are not valid";
        }
        String to = STATUS_AFTER.get(command.type);
        if (to == null) {
            return "the type is unknown";
        }
        if (before == null) {
            return "no order has this id";
        }
        return MOVES.get(before.state.status).contains(to) ? null : "the order cannot become " + to;
    }

    private static State after(Command command, Event before, long ms) throws IOException {
        if (before != null) {
            State was = before.state;
            return new State(STATUS_AFTER.get(command.type), was.user_id, was.currency, was.lines, was.total,
                    was.created_at_ms, ms);
        }
        Order order = ORDER.readValue(command.data);
        long total = order.lines.stream().mapToLong(line -> line.quantity * line.unit_price).sum();
        return new State("created", order.user_id, order.currency, order.lines, total, ms, ms);
    }

    public static void main(String[] arguments) {
        Properties options = new Properties();
        options.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        options.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
        options.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
        options.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        options.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100); // its default for exactly_once_v2
        options.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1); // one processor is one process with one thread, too
        options.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        options.put(StreamsConfig.producerPrefix("compression.type"), "lz4"); // as the processor
        options.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");

        Topology topology = new Topology()
                .addSource("commands", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), arguments[2])
                .addProcessor("decide", Orders::new, "commands")
                .addStateStore(
                        // With its cache, two events of an order in one transaction are one record of the changelog.
                        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(),
                                Serdes.ByteArray()).withCachingEnabled(),
                        "decide")
                .addSink("events", arguments[3], Serdes.String().serializer(), Serdes.ByteArray().serializer(),
                        "decide")
                .addSink("outcomes", arguments[4], Serdes.String().serializer(), Serdes.ByteArray().serializer(),
                        "decide");
        KafkaStreams streams = new KafkaStreams(topology, options);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
