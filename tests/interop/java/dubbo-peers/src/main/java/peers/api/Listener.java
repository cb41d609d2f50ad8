package peers.api;

/** A callback argument: lives with the consumer, called by the provider. */
public interface Listener {
    String changed(String what, Item item);
}
