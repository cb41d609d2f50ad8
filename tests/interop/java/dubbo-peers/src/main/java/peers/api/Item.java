package peers.api;

import java.io.Serializable;
import java.util.List;
import java.util.Map;

/** An item that knows its maker and other items: graphs with shared parts and cycles are made of these. */
public class Item implements Serializable {
    private static final long serialVersionUID = 1L;

    public String name;
    public int count;
    public Colour colour;
    public Maker maker;
    public Item next;
    public List<Item> parts;
    public Map<String, Item> related;

    public Item() {}

    public Item(String name, int count, Colour colour) {
        this.name = name;
        this.count = count;
        this.colour = colour;
    }
}
