package peers.api;

import java.io.Serializable;

public class Maker implements Serializable {
    private static final long serialVersionUID = 1L;

    public String name;
    public long founded;
    public Item first;

    public Maker() {}

    public Maker(String name, long founded) {
        this.name = name;
        this.founded = founded;
    }
}
