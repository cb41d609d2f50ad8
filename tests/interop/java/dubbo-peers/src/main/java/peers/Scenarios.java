package peers;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.rpc.RpcContext;
import org.apache.dubbo.rpc.RpcException;
import org.apache.dubbo.rpc.service.EchoService;
import org.apache.dubbo.rpc.service.GenericService;
import peers.api.Catalogue;
import peers.api.Colour;
import peers.api.Item;
import peers.api.Maker;
import peers.api.Notifier;
import peers.api.Scalars;

/** What consumers do: each scenario makes its calls and prints a line for each. */
final class Scenarios {
    private Scenarios() {}

    static void run(String name, Consumer.Session session) throws Exception {
        // What an earlier call left to this thread.
        RpcContext.removeContext();
        RpcContext.removeServerContext();
        switch (name) {
            case "values":
                values(session);
                break;
            case "failures":
                failures(session);
                break;
            case "async":
                async(session);
                break;
            case "oneway":
                oneway(session);
                break;
            case "generic":
                generic(session);
                break;
            case "echo":
                EchoService echo = (EchoService) session.catalogue();
                session.call("echo", () -> echo.$echo("OK"));
                session.call("echo item", () -> echo.$echo(cycle()));
                break;
            case "attachments":
                attachments(session);
                break;
            case "callback":
                callback(session);
                break;
            case "big":
                big(session);
                break;
            case "toobig":
                tooBig(session);
                break;
            case "concurrent":
                concurrent(session);
                break;
            case "idle":
                idle(session);
                break;
            case "tags":
                tags(session);
                break;
            case "tagged":
                tagged(session);
                break;
            case "common":
                common(session);
                break;
            case "who":
                Catalogue catalogue = session.catalogue();
                session.call("who", catalogue::who);
                break;
            default:
                throw new IllegalArgumentException(name);
        }
    }

    static Item cycle() {
        Item first = new Item("first", 1, Colour.RED);
        Item second = new Item("second", -70000, Colour.GREEN);
        first.maker = new Maker("maker \u4e2d\ud83d\ude00", Long.MIN_VALUE);
        first.maker.first = first;
        second.maker = first.maker;
        first.next = second;
        second.next = first;
        first.parts = new ArrayList<>(Arrays.asList(second, first, new Item(null, 0, null)));
        first.related = new HashMap<>();
        first.related.put("self", first);
        first.related.put("other", second);
        return first;
    }

    static Scalars scalars() {
        Scalars s = new Scalars();
        s.flag = true;
        s.small = -128;
        s.middle = Short.MAX_VALUE;
        s.number = Integer.MIN_VALUE;
        s.large = Long.MAX_VALUE;
        s.single = 1.5f;
        s.real = -1e300;
        s.letter = '\u4e2d';
        s.boxed = 300;
        s.price = new BigDecimal("-12345678901234567890.123456789");
        s.huge = BigInteger.ONE.shiftLeft(200);
        s.when = new Date(1_700_000_000_123L);
        s.raw = Dump.pattern(3000);
        s.ints = new int[] {1, -1, 1 << 20};
        s.longs = new long[] {Long.MIN_VALUE, 0};
        s.words = new String[] {"a", null, "\u00e9"};
        s.colour = Colour.GREEN;
        return s;
    }

    private static List<Map<String, Item>> shelves() {
        Item shared = new Item("shared", 5, Colour.RED);
        List<Map<String, Item>> shelves = new ArrayList<>();
        for (int n = 0; n < 20; n++) {
            Map<String, Item> shelf = new HashMap<>();
            shelf.put("item" + n, new Item("item" + n, n, Colour.values()[n % 2]));
            shelf.put("shared", shared);
            shelves.add(shelf);
        }
        return shelves;
    }

    private static void values(Consumer.Session session) {
        Catalogue c = session.catalogue();
        session.call("hello", () -> c.hello("world"));
        session.call("null argument", () -> c.hello(null));
        session.call("null result", () -> c.nothing("x"));
        session.call("void", () -> {
            c.silent();
            return null;
        });
        session.call("primitives", () -> c.sum(1, 2L, 0.25, true, (byte) 3, (short) 4, '\u0001', 0.5f));
        session.call("arrays", () -> c.join(new String[] {"a", "b"}, new int[] {1, 2}, Colour.RED, Colour.GREEN));
        session.call("item", () -> c.same(new Item("one", 1, Colour.RED)));
        session.call("cycle", () -> c.same(cycle()));
        session.call("shelves", () -> c.shelves(shelves()));
        session.call("scalars", () -> c.scalars(scalars()));
        session.call("bytes", () -> c.bytes(Dump.pattern(70_000)));
        session.call("no bytes", () -> c.bytes(new byte[0]));
        session.call("empty text", () -> c.text(""));
        session.call("emoji", () -> c.text("a\ud83d\ude00\u0000\u007f\u0080\u07ff\u0800\uffff"));
        session.call("lone surrogate", () -> c.text("a\ud83eb"));
        session.call("lone low surrogate", () -> c.text("\ude00x"));
        session.call("long emoji", () -> c.text("\ud83d\ude00".repeat(40_000)));
        session.call("odd long emoji", () -> c.text("x" + "\ud83d\ude00".repeat(40_000)));
        session.call("long text", () -> c.text("t".repeat(65_536)));
        session.call("any map", () -> c.any(new LinkedHashMap<>(Map.of("k", List.of(1, 2L, 3.5)))));
        session.call("any item", () -> c.any(new Object[] {cycle(), "x", 1, new BigDecimal("1.10"), new Date(0), Colour.RED}));
    }

    private static void failures(Consumer.Session session) {
        Catalogue c = session.catalogue();
        for (String how : new String[] {"declared", "cause", "runtime", "refused", "none"}) {
            session.call("fail " + how, () -> c.fail(how));
        }
        session.call("fail later", () -> c.failLater("too late").get(20, TimeUnit.SECONDS));
        session.call("then hello", () -> c.hello("again"));
        MethodConfig hasty = new MethodConfig();
        hasty.setName("slow");
        hasty.setTimeout(300);
        Catalogue quick = session.catalogue(hasty);
        session.call("time-out", () -> {
            try {
                return quick.slow(2000);
            } catch (RpcException e) {
                // Triple's provider watches the time too: whose time-out it was is a matter of chance.
                return e.isTimeout() || String.valueOf(e.getMessage()).contains("DEADLINE_EXCEEDED") ? "in time" : e.getMessage();
            }
        });
        session.call("hello after the time-out", () -> quick.hello("still here"));
        GenericService g = session.generic("true");
        session.call("no such method", () -> g.$invoke("vanish", new String[0], new Object[0]));
    }

    private static void async(Consumer.Session session) {
        Catalogue c = session.catalogue();
        session.call("future", () -> c.later("async", 20).get(20, TimeUnit.SECONDS));
        session.call("futures out of order", () -> {
            List<CompletableFuture<String>> all = new ArrayList<>();
            for (int n = 0; n < 20; n++) {
                all.add(c.later("n" + n, 200 - 10 * n));
            }
            StringBuilder text = new StringBuilder();
            for (CompletableFuture<String> one : all) {
                text.append(one.get(20, TimeUnit.SECONDS)).append(';');
            }
            return text.toString();
        });
        MethodConfig method = new MethodConfig();
        method.setName("hello");
        method.setAsync(true);
        Catalogue asynchronous = session.catalogue(method);
        session.call("asynchronous method", () -> {
            String at = asynchronous.hello("async");
            Future<String> future = RpcContext.getContext().getFuture();
            return at + " " + future.get(20, TimeUnit.SECONDS);
        });
        session.call("asyncCall", () -> {
            Callable<String> call = () -> c.hello("asyncCall");
            return RpcContext.getContext().asyncCall(call).get(20, TimeUnit.SECONDS);
        });
    }

    private static void oneway(Consumer.Session session) {
        for (Boolean sent : new Boolean[] {true, false}) {
            MethodConfig method = new MethodConfig();
            method.setName("note");
            method.setReturn(false);
            method.setSent(sent);
            Catalogue c = session.catalogue(method);
            String key = java.util.UUID.randomUUID().toString();
            for (int n = 0; n < 50; n++) {
                c.note(key);
            }
            session.call("one way, sent " + sent, () -> c.noted(key, 50));
        }
    }

    private static void generic(Consumer.Session session) {
        GenericService g = session.generic("true");
        session.call("generic", () -> g.$invoke("hello", new String[] {"java.lang.String"}, new Object[] {"generic"}));
        session.call("generic item", () -> {
            Map<String, Object> item = new HashMap<>();
            item.put("class", Item.class.getName());
            item.put("name", "made of a map");
            item.put("count", 3);
            item.put("colour", "RED");
            return g.$invoke("same", new String[] {Item.class.getName()}, new Object[] {item});
        });
        session.call("generic primitives", () -> g.$invoke(
                "sum",
                new String[] {"int", "long", "double", "boolean", "byte", "short", "char", "float"},
                new Object[] {1, 2L, 0.5, true, (byte) 1, (short) 1, 'a', 1f}));
        session.call("generic failure", () -> g.$invoke("fail", new String[] {"java.lang.String"}, new Object[] {"none"}));
        session.call("generic async", () -> g.$invokeAsync("hello", new String[] {"java.lang.String"}, new Object[] {"later"})
                .get(20, TimeUnit.SECONDS));
        GenericService raw = session.generic("raw.return");
        session.call("generic raw", () -> raw.$invoke("hello", new String[] {"java.lang.String"}, new Object[] {"raw"}));
        GenericService bean = session.generic("bean");
        session.call("generic bean", () -> {
            Object argument = org.apache.dubbo.common.beanutil.JavaBeanSerializeUtil.serialize("bean");
            Object result = bean.$invoke("hello", new String[] {"java.lang.String"}, new Object[] {argument});
            return org.apache.dubbo.common.beanutil.JavaBeanSerializeUtil.deserialize(
                    (org.apache.dubbo.common.beanutil.JavaBeanDescriptor) result);
        });
    }

    private static void attachments(Consumer.Session session) {
        Catalogue c = session.catalogue();
        for (String prefix : new String[] {"small", "large"}) {
            RpcContext.getContext().setAttachment(prefix + ".text", "plain");
            RpcContext.getContext().setAttachment(prefix + ".emoji", "\u00e9\u4e2d\ud83d\ude00");
            RpcContext.getContext().setAttachment("trace-id", "0123456789abcdef");
            RpcContext.getContext().setObjectAttachment(prefix + ".number", 7);
            RpcContext.getContext().setObjectAttachment(prefix + ".list", new ArrayList<>(List.of("a", 1)));
            if (prefix.equals("large")) {
                RpcContext.getContext().setAttachment("large.long", "v".repeat(40_000));
            }
            session.call(prefix + " attachments there", () -> c.attachments(prefix));
            session.line(prefix + " attachments back", Dump.attachments(RpcContext.getServerContext().getObjectAttachments(), ""));
        }
        session.call("attachments gone", () -> c.attachments("none"));
    }

    private static void callback(Consumer.Session session) throws Exception {
        Notifier n = session.notifier();
        List<String> heard = new ArrayList<>();
        session.call("callback", () -> n.listen("k" + System.nanoTime(), 3, (what, item) -> {
            synchronized (heard) {
                heard.add(Dump.of(item));
            }
            return "ok";
        }));
        session.line("heard", heard.toString());
        String key = "later" + System.nanoTime();
        session.call("callback kept", () -> n.listen(key, 1, (what, item) -> what.startsWith(key) ? "kept" : what));
        session.call("poked", () -> n.poke(key));
    }

    private static void big(Consumer.Session session) {
        int size = 7_900 * 1024;
        Catalogue c = session.catalogue();
        session.call("big there", () -> c.measure(Dump.pattern(size)));
        session.call("big back", () -> c.grow(size));
        session.call("big both", () -> c.bytes(Dump.pattern(size)));
        session.call("big text", () -> c.text("\u4e2d".repeat(size / 3)));
        session.call("then hello", () -> c.hello("again"));
    }

    private static void tooBig(Consumer.Session session) {
        int size = 9 * 1024 * 1024;
        Catalogue c = session.catalogue();
        session.call("too big there", () -> c.measure(new byte[size]));
        session.call("too big back", () -> c.grow(size));
        session.call("then hello", () -> c.hello("again"));
    }

    private static void concurrent(Consumer.Session session) throws Exception {
        Catalogue c = session.catalogue();
        int threads = session.options.number("threads", 16);
        int each = session.options.number("calls", 100);
        List<CompletableFuture<Integer>> all = new ArrayList<>();
        java.util.concurrent.ExecutorService pool = java.util.concurrent.Executors.newFixedThreadPool(threads);
        for (int t = 0; t < threads; t++) {
            String mark = "t" + t + "-";
            all.add(CompletableFuture.supplyAsync(() -> {
                int good = 0;
                for (int n = 0; n < each; n++) {
                    String said = mark + n + "x".repeat(n * 37 % 2000);
                    good += c.text(said).equals(said) ? 1 : 0;
                }
                return good;
            }, pool));
        }
        session.call("concurrent", () -> {
            int good = 0;
            for (CompletableFuture<Integer> one : all) {
                good += one.get(60, TimeUnit.SECONDS);
            }
            return good + " of " + threads * each;
        });
        pool.shutdown();
    }

    /** What providers in other languages have too. */
    private static void common(Consumer.Session session) {
        Catalogue c = session.catalogue();
        session.call("hello", () -> c.hello("world"));
        session.call("text", () -> c.text("a\ud83d\ude00\u4e2d"));
        session.call("long text", () -> c.text("\ud83d\ude00".repeat(40_000)));
        session.call("bytes", () -> c.bytes(Dump.pattern(90_000)));
        session.call("item", () -> c.same(new Item("one", 1, Colour.GREEN)));
        session.call("cycle", () -> c.same(cycle()));
        for (String how : new String[] {"none", "declared", "runtime"}) {
            session.call("fail " + how, () -> c.fail(how));
        }
        // dubbo-go takes seconds for more, too long for fast heartbeats.
        session.call("rather big there", () -> c.measure(Dump.pattern(512 * 1024)));
        session.call("big back", () -> c.grow(1024 * 1024).length);
        RpcContext.getContext().setAttachment("my.key", "\u4e2d");
        session.call("attachments", () -> c.attachments("my."));
    }

    /** All serializations of the run at once, each with a connection of its own. */
    private static void idle(Consumer.Session session) throws Exception {
        Map<String, Catalogue> catalogues = new LinkedHashMap<>();
        Map<String, String> callers = new HashMap<>();
        for (String kind : session.options.get("kinds", "hessian2").split(",")) {
            session.options = session.options.and("serialization", kind);
            Catalogue c = session.catalogue();
            catalogues.put(kind, c);
            session.call(kind + " before", () -> c.hello("idle"));
            callers.put(kind, c.caller());
        }
        Thread.sleep(session.options.number("idle", 10_000));
        for (Map.Entry<String, Catalogue> entry : catalogues.entrySet()) {
            String kind = entry.getKey();
            session.call(kind + " after", () -> entry.getValue().hello("idle"));
            session.line(kind + " same connection", String.valueOf(callers.get(kind).equals(entry.getValue().caller())));
        }
    }

    private static void tags(Consumer.Session session) {
        Catalogue c = session.catalogue();
        for (String tag : new String[] {"", "gray", "", "unknown"}) {
            for (int n = 0; n < 4; n++) {
                // Without a registry Dubbo 2.7 keeps attachments for the next call.
                RpcContext.removeContext();
                if (!tag.isEmpty()) {
                    RpcContext.getContext().setAttachment("dubbo.tag", tag);
                }
                session.call("tag '" + tag + "'", c::who);
            }
        }
    }

    /** Who answers calls with each tag, forced or not: names sorted, each once. */
    private static void tagged(Consumer.Session session) {
        Catalogue c = session.catalogue();
        for (String tag : session.options.get("tags", "-").split(",")) {
            for (String force : new String[] {"", "false", "true"}) {
                session.call("tag " + tag + " force '" + force + "'", () -> {
                    TreeSet<String> who = new TreeSet<>();
                    for (int n = 0; n < session.options.number("calls", 8); n++) {
                        RpcContext.removeContext();
                        if (!tag.equals("-")) {
                            RpcContext.getContext().setAttachment("dubbo.tag", tag);
                        }
                        if (!force.isEmpty()) {
                            RpcContext.getContext().setAttachment("dubbo.force.tag", force);
                        }
                        try {
                            who.add(c.who());
                        } catch (RpcException e) {
                            who.add("nobody");
                        }
                    }
                    return String.join("+", who);
                });
            }
        }
    }
}
