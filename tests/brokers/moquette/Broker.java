// Moquette (MQTT 3.1.1) with sessions in memory, on a free port, which it prints. It ends with its input.
import io.moquette.broker.Server;
import io.moquette.broker.config.MemoryConfig;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.Properties;

public class Broker {
    public static void main(String[] args) throws Exception {
        int port;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            port = free.getLocalPort();
        }
        Properties settings = new Properties();
        settings.setProperty("host", "127.0.0.1");
        settings.setProperty("port", Integer.toString(port));
        settings.setProperty("allow_anonymous", "true");
        settings.setProperty("persistence_enabled", "false");
        settings.setProperty("telemetry_enabled", "false");
        java.io.PrintStream out = System.out;
        System.setOut(System.err);
        new Server().startServer(new MemoryConfig(settings));
        out.println("port " + port);
        out.flush();
        System.in.readAllBytes();
        Runtime.getRuntime().halt(0);
    }
}
