package peers.dubbo3;

import com.google.protobuf.StringValue;
import org.apache.dubbo.common.stream.StreamObserver;
import peers.api.Item;

public class StreamsImpl implements Streams {
    @Override
    public StringValue proto(StringValue value) {
        return StringValue.of("proto " + value.getValue());
    }

    @Override
    public void count(String upTo, StreamObserver<String> answers) {
        boolean fail = upTo.startsWith("fail:");
        int end = Integer.parseInt(fail ? upTo.substring(5) : upTo);
        for (int n = 0; n < end; n++) {
            answers.onNext("answer " + n);
        }
        if (fail) {
            answers.onError(new IllegalStateException("after " + end));
        } else {
            answers.onCompleted();
        }
    }

    @Override
    public StreamObserver<Item> collect(StreamObserver<String> answer) {
        return new StreamObserver<>() {
            private final StringBuilder names = new StringBuilder();

            @Override
            public void onNext(Item item) {
                names.append(item.name).append(';');
            }

            @Override
            public void onError(Throwable error) {}

            @Override
            public void onCompleted() {
                answer.onNext(names.toString());
                answer.onCompleted();
            }
        };
    }

    @Override
    public StreamObserver<Item> converse(StreamObserver<Item> answers) {
        return new StreamObserver<>() {
            @Override
            public void onNext(Item item) {
                item.count++;
                answers.onNext(item);
            }

            @Override
            public void onError(Throwable error) {}

            @Override
            public void onCompleted() {
                answers.onCompleted();
            }
        };
    }
}
