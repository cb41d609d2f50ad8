package peers;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.rpc.service.GenericService;
import peers.api.Catalogue;
import peers.api.Notifier;

/**
 * A consumer for many runs in one process.
 *
 * <p>Each line of the input is a run: an id, the scenarios (a comma between two), and options: url (without the service; several with a
 * semicolon), serialization, group, version, timeout, retries, loadbalance, tag, registry (any
 * value: the addresses come from a registry), and what a scenario asks for. Each call prints one line: id, name of the
 * case, result; the run ends with a line of the id and "done". The command line may have the options of {@link Tls}.
 */
public final class Consumer {
    private static final ApplicationConfig APPLICATION = new ApplicationConfig("consumer");
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private static boolean tls;

    private Consumer() {}

    public static void main(String[] words) throws Exception {
        APPLICATION.setQosEnable(false);
        tls = Tls.prepare(new Options(words));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Traffic traffic = null;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.trim().split(" ");
            Session session = new Session(parts[0], new Options(parts));
            try {
                for (String scenario : parts[1].split(",")) {
                    if (scenario.equals("traffic")) {
                        traffic = new Traffic(session);
                    } else if (scenario.equals("traffic-stop")) {
                        session.line("traffic", traffic.stop());
                    } else if (scenario.equals("traffic-count")) {
                        session.line("calls", String.valueOf(traffic.count()));
                    } else if (scenario.equals("triple")) {
                        Extra.run(session);
                    } else {
                        Scenarios.run(scenario, session);
                    }
                }
            } catch (Throwable e) {
                e.printStackTrace();
                session.line("broke", e.toString().replace('\n', ' '));
            } finally {
                if (traffic == null || traffic.session != session) {
                    session.close();
                }
                session.line("done", "");
            }
        }
        System.exit(0);
    }

    /** What was thrown, as the lines show it. */
    public static String describe(Throwable error) {
        return Dump.failure(Session.unwrap(error));
    }

    /** One run: its options, its references, its lines. */
    public static final class Session {
        Options options;
        private final String id;
        private final List<ReferenceConfig<?>> references = new ArrayList<>();

        Session(String id, Options options) {
            this.id = id;
            this.options = options;
        }

        public void line(String name, String result) {
            synchronized (OUT) {
                OUT.println(id + "\t" + name + "\t" + result);
            }
        }

        /** Prints what the call returns or throws. */
        public void call(String name, Callable<?> call) {
            String result;
            try {
                result = Dump.of(call.call());
            } catch (Throwable e) {
                e.printStackTrace();
                result = Dump.failure(unwrap(e));
            }
            line(name, result);
        }

        public static Throwable unwrap(Throwable error) {
            Throwable at = error;
            while ((at instanceof ExecutionException || at instanceof CompletionException) && at.getCause() != null) {
                at = at.getCause();
            }
            return at;
        }

        public Catalogue catalogue(MethodConfig... methods) {
            return refer(reference(Catalogue.class, methods));
        }

        public Notifier notifier() {
            return refer(reference(Notifier.class));
        }

        public GenericService generic(String kind) {
            ReferenceConfig<GenericService> reference = reference(null);
            reference.setInterface(Catalogue.class.getName());
            reference.setGeneric(kind);
            return refer(reference);
        }

        /** A reference to the service behind the run's addresses, with a connection of its own. */
        public <T> ReferenceConfig<T> reference(Class<T> api, MethodConfig... methods) {
            ReferenceConfig<T> reference = new ReferenceConfig<>();
            reference.setApplication(APPLICATION);
            reference.setRegistry(new RegistryConfig("N/A"));
            String name = Catalogue.class.getName();
            if (api != null) {
                reference.setInterface(api);
                name = api.getName();
            }
            StringBuilder url = new StringBuilder();
            for (String address : options.get("url", "").split(";")) {
                url.append(url.length() == 0 ? "" : ";").append(address.contains("?") ? address.replace("?", "/" + name + "?") : address + "/" + name + "?");
                String serialization = options.get("serialization", null);
                if (serialization != null) {
                    url.append("&serialization=").append(serialization).append("&prefer.serialization=").append(serialization);
                }
                for (String option : new String[] {"heartbeat", "payload", "cluster"}) {
                    if (options.has(option)) {
                        url.append("&").append(option).append("=").append(options.get(option, ""));
                    }
                }
                if (tls) {
                    url.append("&ssl-enabled=true");
                }
                // Only providers read this from the method's configuration; a consumer has it from the registry, which is not there.
                url.append("&listen.2.callback=true&callbacks=1000&connections=").append(options.get("connections", "1"));
            }
            if (options.has("registry")) {
                // As a registry tells it: with what the provider's side is configured to.
                List<String> providers = new ArrayList<>();
                for (String one : url.toString().split(";")) {
                    providers.add(one + "&side=provider&category=providers&interface=" + name);
                }
                RegistryConfig registry = new RegistryConfig("fixed://127.0.0.1:" + FixedRegistryFactory.enter(providers));
                registry.setRegister(false);
                registry.setCheck(false);
                reference.setRegistry(registry);
            } else {
                reference.setUrl(url.toString());
            }
            if (api == Notifier.class && Extra.present()) {
                reference.setParameters(new HashMap<>(Map.of("url-merge-processor", "keep")));
            }
            reference.setCheck(false);
            reference.setTimeout(options.number("timeout", 20000));
            reference.setRetries(options.number("retries", 0));
            reference.setTag(options.get("tag", null));
            reference.setLoadbalance(options.get("loadbalance", null));
            reference.setGroup(options.get("group", null));
            reference.setVersion(options.get("version", null));
            reference.setMethods(methods.length == 0 ? null : Arrays.asList(methods));
            return reference;
        }

        public <T> T refer(ReferenceConfig<T> reference) {
            references.add(reference);
            return reference.get();
        }

        public void close() {
            Collections.reverse(references);
            for (ReferenceConfig<?> reference : references) {
                reference.destroy();
            }
            references.clear();
        }
    }
}
