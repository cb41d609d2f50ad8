package peers;

import java.io.IOException;
import java.net.ServerSocket;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ArgumentConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import peers.api.Catalogue;
import peers.api.Notifier;

/**
 * A provider of all services on one port.
 *
 * <p>Prints "port N" when it serves. A line "stop" or the end of the input ends it as Dubbo ends gracefully: by the shutdown hook.
 * Options: name, protocol (dubbo or tri), heartbeat (ms), tag, payload (bytes), port, host, and those of {@link Tls}.
 */
public final class Provider {
    /** 127.0.0.1 as a number: Dubbo takes other spellings for a mistake and uses another address of the machine. */
    static final String LOOPBACK = "2130706433";

    private Provider() {}

    public static void main(String[] words) throws Exception {
        Options options = new Options(words);
        int port = options.number("port", 0);
        if (port == 0) {
            port = freePort();
        }
        String host = options.get("host", LOOPBACK);
        System.setProperty("DUBBO_IP_TO_BIND", host);
        ProtocolConfig protocol = new ProtocolConfig();
        protocol.setName(options.get("protocol", "dubbo"));
        protocol.setHost(host);
        protocol.setPort(port);
        protocol.setThreads(64);
        protocol.setIothreads(2);
        if (Tls.prepare(options)) {
            protocol.setSslEnabled(true);
        }
        if (options.has("heartbeat")) {
            protocol.setHeartbeat(options.number("heartbeat", 0));
        }
        if (options.has("payload")) {
            protocol.setPayload(options.number("payload", 0));
        }
        Map<String, String> parameters = new HashMap<>();
        parameters.put("prefer.serialization", "hessian2,fastjson2,java,nativejava,compactedjava");
        protocol.setParameters(parameters);

        ApplicationConfig application = new ApplicationConfig("provider");
        application.setQosEnable(false);
        // Else Dubbo 3 opens one more port, 20880, for a service that nobody asks without a registry.
        application.setMetadataServicePort(port);
        Extra.prepare(application, protocol);
        String name = options.get("name", "provider");
        String tag = options.get("tag", null);
        export(application, protocol, Catalogue.class, new CatalogueImpl(name), null, null, tag);
        export(application, protocol, Catalogue.class, new CatalogueImpl(name + "-blue"), "blue", "1.0.0", tag);
        export(application, protocol, Catalogue.class, new CatalogueImpl(name + "-green"), "green", "2.0.0", tag);
        export(application, protocol, Notifier.class, new NotifierImpl(), null, null, tag);
        Extra.export(application, protocol);
        System.out.println("port " + port);
        System.out.flush();
        while (true) {
            int read = System.in.read();
            if (read < 0 || read == 's') {
                break;
            }
        }
        System.exit(0);
    }

    public static <T> void export(
            ApplicationConfig application, ProtocolConfig protocol, Class<T> api, T implementation, String group, String version, String tag) {
        ServiceConfig<T> service = new ServiceConfig<>();
        service.setApplication(application);
        service.setRegistry(new RegistryConfig("N/A"));
        service.setProtocol(protocol);
        service.setInterface(api);
        service.setRef(implementation);
        service.setGroup(group);
        service.setVersion(version);
        service.setTag(tag);
        if (api == Notifier.class) {
            service.setMethods(Collections.singletonList(callbackMethod()));
            service.setCallbacks(1000);
        }
        service.export();
    }

    private static MethodConfig callbackMethod() {
        ArgumentConfig argument = new ArgumentConfig();
        argument.setIndex(2);
        argument.setCallback(true);
        MethodConfig method = new MethodConfig();
        method.setName("listen");
        method.setArguments(Collections.singletonList(argument));
        return method;
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0, 1, java.net.InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }
}
