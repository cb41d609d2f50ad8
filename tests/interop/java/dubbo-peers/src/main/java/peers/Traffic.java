package peers;

import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import peers.api.Catalogue;

/** Calls without a pause by several threads until told to stop. */
final class Traffic {
    final Consumer.Session session;
    private final AtomicInteger calls = new AtomicInteger();
    private final TreeMap<String, Integer> results = new TreeMap<>();
    private final List<Thread> threads = new ArrayList<>();
    private volatile boolean stopped;

    Traffic(Consumer.Session session) {
        this.session = session;
        Catalogue catalogue = session.catalogue();
        for (int n = 0; n < session.options.number("threads", 4); n++) {
            Thread thread = new Thread(() -> run(catalogue));
            thread.start();
            threads.add(thread);
        }
    }

    private void run(Catalogue catalogue) {
        while (!stopped) {
            String result;
            try {
                result = catalogue.slow(5);
            } catch (Throwable e) {
                e.printStackTrace();
                result = Dump.failure(e);
            }
            calls.incrementAndGet();
            synchronized (results) {
                results.merge(result, 1, Integer::sum);
            }
        }
    }

    int count() {
        return calls.get();
    }

    /** How often each result came. */
    String stop() throws InterruptedException {
        stopped = true;
        for (Thread thread : threads) {
            thread.join();
        }
        session.close();
        return results.toString();
    }
}
