/* A device by libmodbus: 100 holding registers, 100 input registers, 64 coils, 64 discrete inputs.
 *
 *     server tcp            Modbus TCP on a free port, which it prints
 *     server serial PATH    RTU on a serial port, as unit 1
 *
 * Register n of both kinds has 3 n + 1, bit n of both kinds is set when n is a multiple of 3. It ends with its input. */
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static modbus_mapping_t *registers(void)
{
    modbus_mapping_t *map = modbus_mapping_new(64, 64, 100, 100);
    for (int n = 0; n < 100; n++)
        map->tab_registers[n] = map->tab_input_registers[n] = 3 * n + 1;
    for (int n = 0; n < 64; n++)
        map->tab_bits[n] = map->tab_input_bits[n] = n % 3 == 0;
    return map;
}

/* Waits for what comes first: a request, or the end of the input. */
static int wait_for(int descriptor)
{
    struct pollfd both[2] = {{.fd = descriptor, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    poll(both, 2, -1);
    return both[1].revents == 0;
}

static void serve(modbus_t *context, modbus_mapping_t *map)
{
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    while (wait_for(modbus_get_socket(context))) {
        int length = modbus_receive(context, request);
        if (length > 0)
            modbus_reply(context, request, length, map);
        else if (length < 0 && errno == ECONNRESET)
            return;
    }
    exit(0);
}

int main(int argc, char **argv)
{
    modbus_mapping_t *map = registers();
    if (argc > 2 && strcmp(argv[1], "serial") == 0) {
        modbus_t *context = modbus_new_rtu(argv[2], 115200, 'N', 8, 1);
        modbus_set_slave(context, 1);
        if (modbus_connect(context) != 0) {
            perror(argv[2]);
            return 1;
        }
        puts("ready");
        fflush(stdout);
        serve(context, map);
        return 0;
    }
    /* libmodbus has no way to say which port it was given. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    bind(listener, (struct sockaddr *)&address, size);
    listen(listener, 4);
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    while (wait_for(listener)) {
        modbus_tcp_accept(context, &listener);
        serve(context, map);
        modbus_close(context);
    }
    return 0;
}
