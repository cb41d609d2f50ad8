package peers;

import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;

/** The door to what only Dubbo 3 has: the class path of 2.7 has no package peers.dubbo3. */
final class Extra {
    private Extra() {}

    static boolean present() {
        return find() != null;
    }

    static void prepare(ApplicationConfig application, ProtocolConfig protocol) throws ReflectiveOperationException {
        if (present()) {
            find().getMethod("prepare", ApplicationConfig.class, ProtocolConfig.class).invoke(null, application, protocol);
        }
    }

    static void export(ApplicationConfig application, ProtocolConfig protocol) throws ReflectiveOperationException {
        if (present()) {
            find().getMethod("export", ApplicationConfig.class, ProtocolConfig.class).invoke(null, application, protocol);
        }
    }

    static void run(Consumer.Session session) throws ReflectiveOperationException {
        find().getMethod("run", Consumer.Session.class).invoke(null, session);
    }

    private static Class<?> find() {
        try {
            return Class.forName("peers.dubbo3.Triple");
        } catch (ClassNotFoundException e) {
            return null;
        }
    }
}
