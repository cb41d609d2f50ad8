import com.alibaba.com.caucho.hessian.io.Hessian2Output;
import com.alibaba.com.caucho.hessian.io.SerializerFactory;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.Serializable;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.UUID;

/**
 * Random object graphs as hessian-lite writes them.
 *
 * <p>Usage: HessianGraphs COUNT SEED. For each graph, on standard output and big-endian: the number of values, the offset after
 * each value, the number of bytes, the bytes. The values of one graph share one Hessian stream, as the arguments and the
 * attachments of a Dubbo call do.
 */
public final class HessianGraphs {
  public enum Color { RED, GREEN, BLUE }

  public static class Node implements Serializable {
    public int number;
    public Integer boxed;
    public String text;
    public Object left;
    public Object right;
    public List<Object> list;
    public Map<String, Object> map;
    public Color color;
    public byte[] bytes;
    public double weight;
    public boolean flag;
    public Date date;
  }

  public static class Child extends Node {
    public long more;
    public BigDecimal price;
    public Node[] nodes;
  }

  public static class Empty implements Serializable {}

  // Enough classes that the index of a definition needs an int of its own.
  public static class C01 implements Serializable { public Object a; }
  public static class C02 implements Serializable { public Object a; public int b; }
  public static class C03 implements Serializable { public String a; public Object b; }
  public static class C04 extends C03 { public Object c; }
  public static class C05 extends C04 { public short d; }
  public static class C06 implements Serializable { public char a; public Object b; }
  public static class C07 implements Serializable { public float a; public Object b; }
  public static class C08 implements Serializable { public int[] a; public Object b; }
  public static class C09 implements Serializable { public long a; public Object b; }
  public static class C10 implements Serializable { public Object a; public Object b; public Object c; }
  public static class C11 implements Serializable { public byte a; public Object b; }
  public static class C12 implements Serializable { public Long a; public Object b; }
  public static class C13 implements Serializable { public Object 名字; }
  public static class C14 extends C10 { public Object d; }
  public static class C15 extends C14 { public Object e; }
  public static class C16 implements Serializable { public Date a; public Object b; }

  private static final Class<?>[] CLASSES = {
    C01.class, C02.class, C03.class, C04.class, C05.class, C06.class, C07.class, C08.class, C09.class, C10.class, C11.class,
    C12.class, C13.class, C14.class, C15.class, C16.class, Empty.class,
  };

  private final Random random;
  private final List<Object> seen = new ArrayList<>();
  private int budget;

  private HessianGraphs(long seed) {
    random = new Random(seed);
  }

  public static void main(String[] arguments) throws Exception {
    int count = Integer.parseInt(arguments[0]);
    long seed = Long.parseLong(arguments[1]);
    SerializerFactory factory = new SerializerFactory();
    factory.setAllowNonSerializable(true);
    DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
    for (int n = 0; n < count; n++) {
      new HessianGraphs(seed * 1_000_003L + n).write(out, factory);
    }
    out.flush();
  }

  private void write(DataOutputStream out, SerializerFactory factory) throws Exception {
    budget = 1 + random.nextInt(random.nextInt(20) == 0 ? 400 : 40);
    int values = 1 + random.nextInt(4);
    ByteArrayOutputStream stream = new ByteArrayOutputStream();
    Hessian2Output hessian = new Hessian2Output(stream);
    hessian.setSerializerFactory(factory);
    int[] ends = new int[values];
    for (int n = 0; n < values; n++) {
      hessian.writeObject(value(0));
      hessian.flushBuffer();
      ends[n] = stream.size();
    }
    out.writeInt(values);
    for (int end : ends) {
      out.writeInt(end);
    }
    out.writeInt(stream.size());
    stream.writeTo(out);
  }

  private Object value(int depth) throws Exception {
    budget--;
    if (!seen.isEmpty() && random.nextInt(8) == 0) {
      return seen.get(random.nextInt(seen.size()));
    }
    if (depth > 12 || budget < 0 || random.nextInt(3) == 0) {
      return scalar();
    }
    return container(depth + 1);
  }

  private Object scalar() {
    switch (random.nextInt(20)) {
      case 0: return null;
      case 1: return random.nextBoolean();
      case 2: return random.nextInt(64) - 16;
      case 3: return random.nextInt() >> random.nextInt(32);
      case 4: return random.nextLong() >> random.nextInt(64);
      case 5: return (double) (random.nextInt(70000) - 35000);
      case 6: return random.nextInt(2000000) / 1000.0;
      case 7: return random.nextGaussian();
      case 8: return new Date(random.nextInt() * (random.nextBoolean() ? 60000L : 1L));
      case 9: return bytes();
      case 10: return Color.values()[random.nextInt(3)];
      case 11: return new BigDecimal(BigInteger.valueOf(random.nextLong()), random.nextInt(20));
      case 12: return new Timestamp(random.nextInt());
      case 13: return Locale.CHINA;
      case 14: return (float) random.nextGaussian();
      case 15: return (short) random.nextInt();
      case 16: return (char) ('a' + random.nextInt(26));
      default: return text();
    }
  }

  private byte[] bytes() {
    int kind = random.nextInt(30);
    byte[] bytes = new byte[kind == 0 ? random.nextInt(20000) : kind < 5 ? random.nextInt(1100) : random.nextInt(20)];
    random.nextBytes(bytes);
    return bytes;
  }

  private String text() {
    int kind = random.nextInt(60);
    int length = kind == 0 ? random.nextInt(70000) : kind < 6 ? random.nextInt(1100) : random.nextInt(40);
    int alphabet = random.nextInt(4);
    StringBuilder text = new StringBuilder(length);
    while (text.length() < length) {
      int choice = alphabet == 3 ? random.nextInt(3) : alphabet;
      if (choice == 0) {
        text.append((char) random.nextInt(128));
      } else if (choice == 1) {
        text.append((char) (128 + random.nextInt(0xD800 - 128)));
      } else if (random.nextInt(20) == 0) {
        text.append((char) (0xD800 + random.nextInt(0x800)));
      } else {
        text.appendCodePoint(0x10000 + random.nextInt(0x100000));
      }
    }
    return text.toString();
  }

  private Object container(int depth) throws Exception {
    int size = random.nextInt(random.nextInt(10) == 0 ? 40 : 5);
    switch (random.nextInt(24)) {
      case 0: return remember(random.ints(size).toArray());
      case 1: return remember(random.longs(size).toArray());
      case 2: return remember(random.doubles(size).toArray());
      case 3: {
        String[] array = remember(new String[size]);
        for (int n = 0; n < size; n++) array[n] = random.nextInt(9) == 0 ? null : text();
        return array;
      }
      case 4: {
        Object[] array = remember(new Object[size]);
        for (int n = 0; n < size; n++) array[n] = value(depth);
        return array;
      }
      case 5: {
        boolean[] array = new boolean[size];
        for (int n = 0; n < size; n++) array[n] = random.nextBoolean();
        return remember(array);
      }
      case 6: {
        List<Object> list = remember(new LinkedList<>());
        for (int n = 0; n < size; n++) list.add(value(depth));
        return list;
      }
      case 7: {
        ArrayDeque<Object> deque = remember(new ArrayDeque<>());
        for (int n = 0; n < size; n++) deque.add(n);
        return deque;
      }
      case 8: {
        Map<String, Object> map = remember(new TreeMap<>());
        for (int n = 0; n < size; n++) map.put(text(), value(depth));
        return map;
      }
      case 9: {
        Map<Object, Object> map = remember(new LinkedHashMap<>());
        for (int n = 0; n < size; n++) map.put(random.nextInt(), value(depth));
        return map;
      }
      case 10: {
        HashSet<Object> set = remember(new HashSet<>());
        for (int n = 0; n < size; n++) set.add(text());
        return set;
      }
      case 11: return remember(new int[][] {random.ints(size).toArray(), {}, random.ints(3).toArray()});
      case 12: return Collections.emptyList();
      case 13: return remember(new ArrayList<>(Arrays.asList(1, 2L, "three")));
      case 14: return new UUID(random.nextLong(), random.nextLong());
      case 15: return LocalDate.ofEpochDay(random.nextInt(100000));
      case 16: return LocalDateTime.ofEpochSecond(random.nextInt(), random.nextInt(1000000000), java.time.ZoneOffset.UTC);
      case 17: return Instant.ofEpochMilli(random.nextInt());
      case 18: {
        Map<String, Object> map = remember(new HashMap<>());
        for (int n = 0; n < size; n++) map.put(text(), value(depth));
        return map;
      }
      case 19:
      case 20: {
        List<Object> list = remember(new ArrayList<>());
        for (int n = 0; n < size; n++) list.add(value(depth));
        return list;
      }
      case 21: return node(random.nextBoolean() ? new Node() : new Child(), depth);
      default: return bean(depth);
    }
  }

  private Node node(Node node, int depth) throws Exception {
    remember(node);
    node.number = random.nextInt();
    node.boxed = random.nextBoolean() ? null : random.nextInt(300);
    node.text = random.nextInt(4) == 0 ? null : text();
    node.left = value(depth);
    node.right = value(depth);
    node.color = random.nextBoolean() ? null : Color.BLUE;
    node.bytes = random.nextBoolean() ? null : bytes();
    node.weight = random.nextInt(9);
    node.flag = random.nextBoolean();
    node.date = new Date(random.nextInt());
    if (node instanceof Child) {
      Child child = (Child) node;
      child.more = random.nextLong();
      child.price = BigDecimal.ONE;
      child.nodes = new Node[] {node, null, new Node()};
    }
    return node;
  }

  private Object bean(int depth) throws Exception {
    Object bean = remember(CLASSES[random.nextInt(CLASSES.length)].getConstructor().newInstance());
    for (java.lang.reflect.Field field : bean.getClass().getFields()) {
      if (field.getType() == Object.class) {
        field.set(bean, value(depth));
      } else if (field.getType() == String.class) {
        field.set(bean, text());
      }
    }
    return bean;
  }

  private <T> T remember(T value) {
    seen.add(value);
    return value;
  }
}
