package peers;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.registry.NotifyListener;
import org.apache.dubbo.registry.Registry;
import org.apache.dubbo.registry.RegistryFactory;
import org.apache.dubbo.registry.support.FailbackRegistry;

/**
 * A registry that always says the same, so that a consumer has what only a registry gives it: a directory with routers.
 *
 * <p>The port of its address is the key of what was entered.
 */
public final class FixedRegistryFactory implements RegistryFactory {
    private static final Map<Integer, List<String>> ENTERED = new ConcurrentHashMap<>();

    /** Addresses of providers, with their parameters; the key to ask for them. */
    static int enter(List<String> providers) {
        int key = ENTERED.size() + 1;
        ENTERED.put(key, providers);
        return key;
    }

    @Override
    public Registry getRegistry(URL url) {
        return new Fixed(url);
    }

    private static final class Fixed extends FailbackRegistry {
        Fixed(URL url) {
            super(url);
        }

        @Override
        public boolean isAvailable() {
            return true;
        }

        @Override
        public void doRegister(URL url) {}

        @Override
        public void doUnregister(URL url) {}

        @Override
        public void doUnsubscribe(URL url, NotifyListener listener) {}

        @Override
        public void doSubscribe(URL url, NotifyListener listener) {
            List<URL> found = new ArrayList<>();
            for (String provider : ENTERED.get(getUrl().getPort())) {
                found.add(URL.valueOf(provider));
            }
            notify(url, listener, found);
        }
    }
}
