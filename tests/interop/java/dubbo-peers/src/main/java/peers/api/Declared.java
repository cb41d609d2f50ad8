package peers.api;

/** What the methods of the catalogue say they throw. */
public class Declared extends Exception {
    private static final long serialVersionUID = 1L;

    public int code;

    public Declared() {}

    public Declared(String message, int code, Throwable cause) {
        super(message, cause);
        this.code = code;
    }
}
