package peers;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import peers.api.Colour;
import peers.api.Item;
import peers.api.Listener;
import peers.api.Notifier;

public class NotifierImpl implements Notifier {
    private final Map<String, Listener> listeners = new ConcurrentHashMap<>();

    @Override
    public String listen(String key, int times, Listener listener) {
        listeners.put(key, listener);
        StringBuilder said = new StringBuilder();
        for (int n = 0; n < times; n++) {
            said.append(listener.changed(key + n, new Item("item" + n, n, Colour.GREEN))).append(';');
        }
        return said.toString();
    }

    @Override
    public String poke(String key) {
        return listeners.get(key).changed("poke", null);
    }
}
