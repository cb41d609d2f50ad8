package peers;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.apache.dubbo.rpc.RpcContext;
import peers.api.Catalogue;
import peers.api.Colour;
import peers.api.Declared;
import peers.api.Item;
import peers.api.Refused;
import peers.api.Scalars;

public class CatalogueImpl implements Catalogue {
    private static final ScheduledExecutorService TIMER = Executors.newScheduledThreadPool(1, task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });
    private static final Map<String, Integer> NOTES = new java.util.HashMap<>();

    private final String name;

    public CatalogueImpl(String name) {
        this.name = name;
    }

    @Override
    public String hello(String who) {
        return name + " greets " + who;
    }

    @Override
    public String who() {
        return name;
    }

    @Override
    public String caller() {
        return RpcContext.getContext().getRemoteAddressString();
    }

    @Override
    public String text(String text) {
        return text;
    }

    @Override
    public byte[] bytes(byte[] data) {
        return data;
    }

    @Override
    public Object any(Object value) {
        return value;
    }

    @Override
    public Item same(Item item) {
        return item;
    }

    @Override
    public Scalars scalars(Scalars scalars) {
        return scalars;
    }

    @Override
    public List<Map<String, Item>> shelves(List<Map<String, Item>> shelves) {
        return shelves;
    }

    @Override
    public double sum(int a, long b, double c, boolean d, byte e, short f, char g, float h) {
        return a + b + c + (d ? 1 : 0) + e + f + g + h;
    }

    @Override
    public String join(String[] words, int[] numbers, Colour... colours) {
        return Arrays.toString(words) + Arrays.toString(numbers) + Arrays.toString(colours);
    }

    @Override
    public String nothing(String ignored) {
        return null;
    }

    @Override
    public void silent() {}

    @Override
    public byte[] grow(int size) {
        return Dump.pattern(size);
    }

    @Override
    public int measure(byte[] data) {
        return data.length;
    }

    @Override
    public CompletableFuture<String> later(String who, int millis) {
        CompletableFuture<String> promise = new CompletableFuture<>();
        TIMER.schedule(() -> promise.complete(name + " later greets " + who), millis, TimeUnit.MILLISECONDS);
        return promise;
    }

    @Override
    public String slow(int millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return name + " after " + millis;
    }

    @Override
    public String fail(String how) throws Declared {
        switch (how) {
            case "declared":
                throw new Declared("not found: \u00e9\u4e2d\ud83d\ude00", 7, null);
            case "cause":
                throw new Declared("outer", 8, new IllegalArgumentException("inner", new Refused("innermost")));
            case "runtime":
                throw new IllegalStateException("in a bad state");
            case "refused":
                throw new Refused(null);
            default:
                return how;
        }
    }

    @Override
    public CompletableFuture<String> failLater(String how) {
        CompletableFuture<String> promise = new CompletableFuture<>();
        TIMER.schedule(() -> promise.completeExceptionally(new IllegalStateException(how)), 5, TimeUnit.MILLISECONDS);
        return promise;
    }

    @Override
    public void note(String key) {
        synchronized (NOTES) {
            NOTES.merge(key, 1, Integer::sum);
            NOTES.notifyAll();
        }
    }

    @Override
    public int noted(String key, int atLeast) {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        synchronized (NOTES) {
            while (NOTES.getOrDefault(key, 0) < atLeast && System.nanoTime() < end) {
                try {
                    NOTES.wait(1000);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                    break;
                }
            }
            return NOTES.getOrDefault(key, 0);
        }
    }

    @Override
    public String attachments(String prefix) {
        String got = Dump.attachments(RpcContext.getContext().getObjectAttachments(), "");
        RpcContext.getServerContext().setAttachment(prefix + ".reply", "\u4e2d\ud83d\ude00 of " + name);
        RpcContext.getServerContext().setObjectAttachment(prefix + ".number", 42);
        return got;
    }
}
