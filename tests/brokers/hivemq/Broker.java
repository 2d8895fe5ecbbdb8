// HiveMQ CE (MQTT 3.1.1 and 5) with sessions in memory, on a free port, which it prints. It ends with its input.
import com.hivemq.embedded.EmbeddedHiveMQ;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;

public class Broker {
    public static void main(String[] args) throws Exception {
        int port;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            port = free.getLocalPort();
        }
        Path home = Files.createTempDirectory("hivemq");
        Path conf = Files.createDirectories(home.resolve("conf"));
        Files.writeString(conf.resolve("config.xml"), "<hivemq><listeners><tcp-listener><port>" + port
                + "</port><bind-address>127.0.0.1</bind-address></tcp-listener></listeners>"
                + "<persistence><mode>in-memory</mode></persistence>"
                + "<anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics></hivemq>");
        EmbeddedHiveMQ hivemq = EmbeddedHiveMQ.builder().withConfigurationFolder(conf)
                .withDataFolder(Files.createDirectories(home.resolve("data")))
                .withExtensionsFolder(Files.createDirectories(home.resolve("extensions"))).build();
        java.io.PrintStream out = System.out;
        System.setOut(System.err);
        hivemq.start().join();
        out.println("port " + port);
        out.flush();
        System.in.readAllBytes();
        Runtime.getRuntime().halt(0);
    }
}
