package peers.api;

public enum Colour {
    RED,
    GREEN
}
