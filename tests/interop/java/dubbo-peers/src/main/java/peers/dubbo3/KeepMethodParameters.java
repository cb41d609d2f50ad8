package peers.dubbo3;

import java.util.Map;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.rpc.cluster.ProviderURLMergeProcessor;
import org.apache.dubbo.rpc.cluster.support.merger.DefaultProviderURLMergeProcessor;

/** What a direct address says about methods (callback arguments) is lost when Dubbo 3 merges it with the reference's parameters. */
public class KeepMethodParameters implements ProviderURLMergeProcessor {
    private final ProviderURLMergeProcessor stock = new DefaultProviderURLMergeProcessor();

    @Override
    public URL mergeUrl(URL remote, Map<String, String> local) {
        return URL.valueOf(stock.mergeUrl(remote, local).toFullString()).setScopeModel(remote.getScopeModel());
    }
}
