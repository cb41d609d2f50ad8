package peers;

import java.util.LinkedHashMap;
import java.util.Map;

/** Words of the form name=value. */
final class Options {
    private final Map<String, String> values = new LinkedHashMap<>();

    Options(String... words) {
        for (String word : words) {
            int at = word.indexOf('=');
            if (at > 0) {
                values.put(word.substring(0, at), word.substring(at + 1));
            }
        }
    }

    String get(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    /** The same with one value more. */
    Options and(String name, String value) {
        Options more = new Options();
        more.values.putAll(values);
        more.values.put(name, value);
        return more;
    }

    int number(String name, int otherwise) {
        return Integer.parseInt(get(name, String.valueOf(otherwise)));
    }

    boolean has(String name) {
        return values.containsKey(name);
    }
}
