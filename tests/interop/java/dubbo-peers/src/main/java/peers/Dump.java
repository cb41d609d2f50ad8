package peers;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.security.MessageDigest;
import java.util.Collection;
import java.util.Date;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.dubbo.rpc.RpcException;

/** Values as one line of ASCII, the same for equal values: classes, contents, shared parts and cycles. */
final class Dump {
    /** Sizes of frames, and headers that every HTTP proxy adds (Triple's attachments are headers). */
    private static final Set<String> IGNORED = Set.of("input", "output", "x-forwarded-proto", "x-request-id");

    private final Map<Object, Integer> seen = new IdentityHashMap<>();
    private final StringBuilder out = new StringBuilder();

    private Dump() {}

    static String of(Object value) {
        Dump dump = new Dump();
        dump.value(value);
        return dump.out.toString();
    }

    /** Bytes that no compression and no repetition makes equal by chance. */
    static byte[] pattern(int size) {
        byte[] data = new byte[size];
        new java.util.Random(size).nextBytes(data);
        return data;
    }

    /** Sorted by key; only those that begin so. */
    static String attachments(Map<String, ?> attachments, String prefix) {
        TreeMap<String, String> sorted = new TreeMap<>();
        for (Map.Entry<String, ?> entry : attachments.entrySet()) {
            if (entry.getKey().startsWith(prefix) && !IGNORED.contains(entry.getKey())) {
                sorted.put(of(entry.getKey()), of(entry.getValue()));
            }
        }
        return sorted.toString();
    }

    /** Class and message, of the causes too. What Dubbo itself threw has addresses and times in its message: of that the code. */
    static String failure(Throwable error) {
        if (error instanceof RpcException) {
            RpcException rpc = (RpcException) error;
            Throwable cause = rpc.getCause();
            String why = cause == null ? "-" : cause.getClass().getName();
            return "threw RpcException code " + rpc.getCode() + " cause " + why;
        }
        StringBuilder text = new StringBuilder("threw ");
        for (Throwable at = error; at != null; at = at.getCause()) {
            String message = at.getMessage();
            text.append(at.getClass().getName()).append(' ').append(of(message == null ? null : message.split("\r?\n")[0]));
            if (at instanceof peers.api.Declared) {
                text.append(" code ").append(((peers.api.Declared) at).code);
            }
            text.append(at.getCause() == null ? "" : " because of ");
        }
        return text.toString();
    }

    private void value(Object value) {
        if (value == null) {
            out.append("null");
        } else if (value instanceof String) {
            text((String) value);
        } else if (value instanceof Number || value instanceof Boolean || value instanceof Enum) {
            out.append(value.getClass().getSimpleName()).append(' ').append(value);
        } else if (value instanceof Character) {
            out.append("Character ").append((int) (Character) value);
        } else if (value instanceof Date) {
            out.append(value.getClass().getSimpleName()).append(' ').append(((Date) value).getTime());
        } else if (value instanceof byte[]) {
            bytes((byte[]) value);
        } else if (value.getClass().getName().startsWith("java.time.")) {
            out.append(value.getClass().getSimpleName()).append(' ').append(value);
        } else if (seen.containsKey(value)) {
            out.append('#').append(seen.get(value));
        } else {
            seen.put(value, seen.size());
            container(value);
        }
    }

    private void container(Object value) {
        out.append(value.getClass().getSimpleName());
        if (value instanceof Map) {
            TreeMap<String, Object> sorted = new TreeMap<>();
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                sorted.put(of(entry.getKey()), entry.getValue());
            }
            out.append('{');
            for (Map.Entry<String, Object> entry : sorted.entrySet()) {
                out.append(entry.getKey()).append(": ");
                value(entry.getValue());
                out.append(", ");
            }
            out.append('}');
        } else if (value instanceof Collection) {
            out.append('[');
            for (Object item : (Collection<?>) value) {
                value(item);
                out.append(", ");
            }
            out.append(']');
        } else if (value.getClass().isArray()) {
            out.append('[');
            for (int n = 0; n < Array.getLength(value); n++) {
                value(Array.get(value, n));
                out.append(", ");
            }
            out.append(']');
        } else {
            fields(value);
        }
    }

    private void fields(Object value) {
        out.append('(');
        for (Field field : value.getClass().getFields()) {
            if (!Modifier.isStatic(field.getModifiers())) {
                out.append(field.getName()).append('=');
                try {
                    value(field.get(value));
                } catch (IllegalAccessException e) {
                    throw new AssertionError(e);
                }
                out.append(", ");
            }
        }
        out.append(')');
    }

    private void text(String text) {
        if (text.length() > 400) {
            out.append("text of ").append(text.length()).append(" units ").append(Integer.toHexString(text.hashCode()));
            return;
        }
        out.append('"');
        for (char unit : text.toCharArray()) {
            if (unit >= ' ' && unit < 127 && unit != '"' && unit != '\\') {
                out.append(unit);
            } else {
                out.append(String.format("\\u%04x", (int) unit));
            }
        }
        out.append('"');
    }

    private void bytes(byte[] data) {
        try {
            byte[] hash = MessageDigest.getInstance("SHA-256").digest(data);
            out.append(data.length).append(" bytes ");
            for (int n = 0; n < 8; n++) {
                out.append(String.format("%02x", hash[n]));
            }
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new AssertionError(e);
        }
    }
}
