package peers;

import org.apache.dubbo.config.SslConfig;
import org.apache.dubbo.rpc.model.ApplicationModel;

/**
 * Mutual TLS of the dubbo protocol, as {@code dubbo.ssl.*} configures it.
 *
 * <p>Options: certs (a folder with root.pem, and NAME.pem and NAME.key of each workload), identity (which NAME is ours).
 */
final class Tls {
    private Tls() {}

    /** True when the options ask for it. Must be called before anything is exported or referred to. */
    static boolean prepare(Options options) {
        if (!options.has("certs")) {
            return false;
        }
        String folder = options.get("certs", "") + "/";
        String own = folder + options.get("identity", "");
        SslConfig config = new SslConfig();
        config.setServerKeyCertChainPath(own + ".pem");
        config.setServerPrivateKeyPath(own + ".key");
        config.setServerTrustCertCollectionPath(folder + "root.pem");
        config.setClientKeyCertChainPath(own + ".pem");
        config.setClientPrivateKeyPath(own + ".key");
        config.setClientTrustCertCollectionPath(folder + "root.pem");
        ApplicationModel.getConfigManager().setSsl(config);
        return true;
    }
}
