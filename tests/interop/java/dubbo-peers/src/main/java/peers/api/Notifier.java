package peers.api;

public interface Notifier {
    /** Keeps the listener under the key and calls it so many times before it answers; returns what the listener said. */
    String listen(String key, int times, Listener listener);

    /** Calls the listener of the key again, later, on the connection on which it was given. */
    String poke(String key);
}
