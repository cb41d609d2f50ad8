package peers.api;

import java.io.Serializable;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.Date;

/** One field of each kind that serializations write in a way of their own. */
public class Scalars implements Serializable {
    private static final long serialVersionUID = 1L;

    public boolean flag;
    public byte small;
    public short middle;
    public int number;
    public long large;
    public float single;
    public double real;
    public char letter;
    public Integer boxed;
    public BigDecimal price;
    public BigInteger huge;
    public Date when;
    public byte[] raw;
    public int[] ints;
    public long[] longs;
    public String[] words;
    public Colour colour;
}
