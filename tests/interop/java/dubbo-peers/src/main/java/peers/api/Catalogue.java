package peers.api;

import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** The service of most cases. */
public interface Catalogue {
    /** The provider's name and what was said. */
    String hello(String name);

    /** The provider's name, for those who ask who answered. */
    String who();

    /** The address and port that the provider sees as its caller. */
    String caller();

    String text(String text);

    byte[] bytes(byte[] data);

    Object any(Object value);

    Item same(Item item);

    Scalars scalars(Scalars scalars);

    List<Map<String, Item>> shelves(List<Map<String, Item>> shelves);

    double sum(int a, long b, double c, boolean d, byte e, short f, char g, float h);

    String join(String[] words, int[] numbers, Colour... colours);

    String nothing(String ignored);

    void silent();

    byte[] grow(int size);

    int measure(byte[] data);

    CompletableFuture<String> later(String name, int millis);

    String slow(int millis);

    String fail(String how) throws Declared;

    CompletableFuture<String> failLater(String how);

    /** Called one way. */
    void note(String key);

    /** Waits until the key was noted as often as said. */
    int noted(String key, int atLeast);

    /** The attachments as the provider got them; sets some of its own. */
    String attachments(String prefix);
}
