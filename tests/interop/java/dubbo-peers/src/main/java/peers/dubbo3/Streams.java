package peers.dubbo3;

import com.google.protobuf.StringValue;
import org.apache.dubbo.common.stream.StreamObserver;
import peers.api.Item;

/** What only Triple can carry. */
public interface Streams {
    /** A protobuf message goes over the wire as it is, all else in Triple's wrapper. */
    StringValue proto(StringValue value);

    /** So many answers; "fail:N" fails after N. */
    void count(String upTo, StreamObserver<String> answers);

    /** One answer when the caller has ended. */
    StreamObserver<Item> collect(StreamObserver<String> answer);

    /** An answer for each item, at once. */
    StreamObserver<Item> converse(StreamObserver<Item> answers);
}
