package peers.api;

/** Thrown without being declared. */
public class Refused extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public Refused() {}

    public Refused(String message) {
        super(message);
    }
}
