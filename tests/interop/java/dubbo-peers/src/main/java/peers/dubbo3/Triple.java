package peers.dubbo3;

import com.google.protobuf.StringValue;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.dubbo.common.stream.StreamObserver;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;
import peers.Consumer;
import peers.Provider;
import peers.api.Colour;
import peers.api.Item;

/** Streams over Triple, for both sides. */
public final class Triple {
    private Triple() {}

    /** What Dubbo 2.7 has no setters for: Dubbo 2 on Triple's port, and Dubbo's own service there too. */
    public static void prepare(ApplicationConfig application, ProtocolConfig protocol) {
        application.setMetadataServiceProtocol(protocol.getName());
        if (protocol.getName().equals("tri")) {
            protocol.setExtProtocol("dubbo");
        }
    }

    public static void export(ApplicationConfig application, ProtocolConfig protocol) {
        if (protocol.getName().equals("tri")) {
            Provider.export(application, protocol, Streams.class, new StreamsImpl(), null, null, null);
        }
    }

    public static void run(Consumer.Session session) {
        Streams streams = session.refer(session.reference(Streams.class));
        session.call("protobuf", () -> streams.proto(StringValue.of("\u4e2d\ud83d\ude00")).getValue());
        for (String upTo : new String[] {"0", "1", "200", "fail:0", "fail:3"}) {
            session.call("server stream " + upTo, () -> {
                Answers<String> answers = new Answers<>();
                streams.count(upTo, answers);
                return answers.all();
            });
        }
        session.call("client stream", () -> {
            Answers<String> answers = new Answers<>();
            StreamObserver<Item> items = streams.collect(answers);
            for (int n = 0; n < 100; n++) {
                items.onNext(new Item("i" + n, n, Colour.RED));
            }
            items.onCompleted();
            return answers.all();
        });
        session.call("both ways", () -> {
            Answers<Item> answers = new Answers<>();
            StreamObserver<Item> items = streams.converse(answers);
            List<Object> said = new ArrayList<>();
            for (int n = 0; n < 20; n++) {
                items.onNext(new Item("i" + n, n, Colour.GREEN));
                said.add(answers.next());
            }
            items.onCompleted();
            said.add(answers.next());
            return said;
        });
    }

    /** What came, in order; the end is the word "completed" or what was thrown. */
    private static final class Answers<T> implements StreamObserver<T> {
        private final BlockingQueue<Object> queue = new LinkedBlockingQueue<>();
        private volatile boolean ended;

        @Override
        public void onNext(T answer) {
            queue.add(answer);
        }

        @Override
        public void onError(Throwable error) {
            ended = true;
            queue.add(Consumer.describe(error));
        }

        @Override
        public void onCompleted() {
            ended = true;
            queue.add("completed");
        }

        Object next() throws InterruptedException {
            Object answer = queue.poll(20, TimeUnit.SECONDS);
            return answer == null ? "nothing came" : answer;
        }

        List<Object> all() throws InterruptedException {
            List<Object> all = new ArrayList<>();
            while (!ended || !queue.isEmpty()) {
                Object answer = next();
                all.add(answer);
                if (answer.equals("nothing came")) {
                    break;
                }
            }
            return all;
        }
    }
}
